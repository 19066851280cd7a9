function (root) {
  "use strict";
  if (root.explorer) return; // a page that is restored, or holds this twice, runs its scripts again
  root.explorer = {};
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const bytes = (address) => Uint8Array.from(atob(address.split(",")[1]), (letter) => letter.charCodeAt(0));
  const shades = bytes(data.attention), colours = bytes(data.colours);
  const peaks = new Float32Array(bytes(data.peaks).buffer), toClass = new Float32Array(bytes(data.class).buffer);
  const { rows, cols, side, first } = data, patches = rows * cols, tokens = patches + first; // first: 1 behind a class token
  const blockCount = data.blocks.length, headCount = data.heads.length;
  const boardCount = headCount + (headCount > 1 ? 1 : 0); // and their mean
  const width = cols * side, height = rows * side;

  const picture = new Image();
  picture.onload = () => { // of a page saved alive the old controls may not have been read yet
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
    else start();
  };
  picture.src = data.image;

  function element(kind, attributes, parent) {
    const made = document.createElement(kind);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "text") made.textContent = value;
      else made.setAttribute(name, value);
    }
    if (parent) parent.appendChild(made);
    return made;
  }

  function start() {
    const sketch = element("canvas", { width, height }).getContext("2d");
    sketch.drawImage(picture, 0, 0);
    const pixels = sketch.getImageData(0, 0, width, height).data;
    const grey = new Float32Array(width * height);
    let brightest = 0;
    for (let place = 0; place < grey.length; place++) {
      grey[place] = (0.299 * pixels[4 * place] + 0.587 * pixels[4 * place + 1] + 0.114 * pixels[4 * place + 2]) / 255;
      brightest = Math.max(brightest, grey[place]);
    }
    const light = grey.map((one) => 0.65 * (0.5 + (0.5 * one) / (brightest || 1)));
    const ground = grey.map((one) => 0.35 * 255 * one);
    const patchOf = new Uint16Array(width * height);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        patchOf[y * width + x] = Math.floor(y / side) * cols + Math.floor(x / side);

    const zoom = Math.max(1, Math.ceil(480 / width)); // so that lines on a small picture are thin
    for (const old of root.querySelectorAll(".vit-bar, .vit-row, .vit-text")) old.remove(); // of a page saved alive
    root.querySelector(".vit-still").hidden = true;
    const bar = element("div", { class: "vit-bar" }, root);
    const label = element("label", { text: "block " }, bar);
    const slider = element("input", { type: "range", min: 0, max: blockCount - 1, value: blockCount - 1, step: 1 }, label);
    const shown = element("output", {}, label);
    const button = element("button", { type: "button", "aria-pressed": "true", text: "class token" }, bar);
    button.hidden = !first;
    label.hidden = blockCount === 1;
    element("span", { text: "point at a patch, or use the arrow keys; click, a second tap or Enter pins it, Escape lets it go" }, bar);
    const line = element("div", { class: "vit-row" }, root);
    const view = element("canvas", {
      class: "vit-picture", width: width * zoom, height: height * zoom, tabindex: 0,
      role: "application", "aria-roledescription": "picture in patches", // of an image screen readers keep the arrow keys
      "aria-label": "The picture. Arrow keys choose the patch whose attention is shown" + (first ? ", Home the class token." : "."),
    }, line);
    const maps = board(line, "now");
    const text = element("p", { class: "vit-text", "aria-live": "polite" }, root);
    const below = element("div", { class: "vit-row vit-pinned", hidden: "" }, root);
    const pinnedText = element("div", { style: "width:240px" }, below);
    const pinnedMaps = board(below, "pinned");

    // Query 0 is the class token, as in the model; the patches begin at 1, also where there is none.
    const home = first ? 0 : 1 + Math.floor(rows / 2) * cols + Math.floor(cols / 2);
    let query = home, block = blockCount - 1, pinned = null;
    slider.oninput = () => { block = Number(slider.value); draw(); };
    for (const one of [slider, button, view]) one.setAttribute("data-lm-suppress-shortcuts", "true"); // Jupyter's, for keys
    const modified = (event) => event.ctrlKey || event.altKey || event.metaKey || event.shiftKey;
    const keep = (control, keys) => control.addEventListener("keydown", (event) => { // or the notebook takes them
      if (keys.includes(event.key) && !modified(event)) event.stopPropagation();
    });
    keep(slider, ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);
    keep(button, ["Enter", " "]);
    button.onclick = () => look(0);
    const under = (event) => {
      const box = view.getBoundingClientRect();
      const col = Math.floor(((event.clientX - box.left) / box.width) * cols);
      const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
      return row < 0 || col < 0 || row >= rows || col >= cols ? null : 1 + row * cols + col;
    };
    let pressed = null; // a press and its release on one patch pin it; a finger may wander before it is lifted
    view.addEventListener("pointermove", (event) => look(under(event) ?? query));
    view.addEventListener("pointerdown", (event) => { // a finger's first tap points, the second on the same patch pins
      const before = query;
      look(under(event) ?? query);
      pressed = event.button === 0 && (event.pointerType !== "touch" || before === query) ? query : null;
    });
    view.addEventListener("pointerup", (event) => { if (pressed !== null && pressed === under(event)) pin(); pressed = null; });
    view.addEventListener("pointerleave", () => { pressed = null; }); // what is released outside is not told here
    view.addEventListener("keydown", (event) => {
      if (modified(event)) return; // Shift+Enter is the notebook's, Alt+Left the browser's
      const row = Math.floor((query - 1) / cols), col = (query - 1) % cols;
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (event.key in steps) {
        const [down, across] = steps[event.key];
        if (query === 0) look(1);
        else if (row + down >= 0 && row + down < rows && col + across >= 0 && col + across < cols)
          look(1 + (row + down) * cols + col + across);
      } else if (event.key === "Home") look(home);
      else if (event.key === "Enter" || event.key === " ") pin();
      else if (event.key === "Escape" && pinned !== null) { pinned = null; draw(); }
      else return;
      event.preventDefault();
      event.stopPropagation();
    });

    function board(parent, what) {
      const least = boardCount === 1 ? 240 : boardCount <= 6 ? 150 : 88; // few maps may be large, but not beyond the picture
      const room = "--least:" + least + "px" + (boardCount === 1 ? ";max-width:240px" : "");
      const grid = element("div", { class: "vit-maps", style: room }, parent), list = [];
      for (let head = 0; head < boardCount; head++) {
        const name = head < headCount ? "head " + data.heads[head] : "mean";
        const figure = element("figure", {}, grid);
        const canvas = element("canvas", { width, height, role: "img", "aria-label": what + ", " + name }, figure);
        element("figcaption", { text: name }, figure);
        const context = canvas.getContext("2d");
        const frame = context.createImageData(width, height);
        frame.data.fill(255); // opaque
        list.push({ context, frame });
      }
      return list;
    }

    function weights(head, from) {
      const place = (block * headCount + head) * tokens + from - 1 + first, peak = peaks[place] / 255;
      const row = new Float32Array(patches + 1);
      if (first) row[0] = toClass[place];
      for (let key = 0; key < patches; key++) row[1 + key] = shades[place * patches + key] * peak;
      return row;
    }

    function paint(target, row) { // of the patches; the class token's own column is left out, as in every picture here
      let most = 1e-9;
      for (let key = 1; key <= patches; key++) most = Math.max(most, row[key]);
      const out = target.frame.data, shadeOf = new Uint16Array(patches);
      for (let key = 0; key < patches; key++) shadeOf[key] = 3 * Math.min(255, Math.round((255 * row[1 + key]) / most));
      for (let place = 0; place < grey.length; place++) {
        const shade = shadeOf[patchOf[place]], part = light[place], base = ground[place];
        out[4 * place] = base + part * colours[shade];
        out[4 * place + 1] = base + part * colours[shade + 1];
        out[4 * place + 2] = base + part * colours[shade + 2];
      }
      target.context.putImageData(target.frame, 0, 0);
    }

    function fill(list, from) {
      const mean = new Float32Array(patches + 1);
      for (let head = 0; head < headCount; head++) {
        const row = weights(head, from);
        for (let key = 0; key <= patches; key++) mean[key] += row[key] / headCount;
        paint(list[head], row);
      }
      if (headCount > 1) paint(list[headCount], mean);
      return mean;
    }

    const place = (token) => token === 0 ? "the class token"
      : "the patch in row " + Math.floor((token - 1) / cols) + ", column " + ((token - 1) % cols);

    function told(from, mean) {
      const order = Array.from(mean.keys()).slice(1 - first).sort((a, b) => mean[b] - mean[a]).slice(0, 5);
      const which = [data.of > 1 ? "block " + (data.blocks[block] + 1) : "", headCount > 1 ? "mean of the heads" : ""];
      const start = which.filter(Boolean).join(", ") + (data.of > 1 || headCount > 1 ? ": " : "") + place(from);
      return start[0].toUpperCase() + start.slice(1) + " looks at "
        + order.map((key) => place(key) + " (" + mean[key].toFixed(3) + ")").join(", ") + "; everywhere alike would be "
        + (1 / tokens).toFixed(3) + ".";
    }

    function outline(context, token, colour) {
      if (token === 0) return;
      const row = Math.floor((token - 1) / cols), col = (token - 1) % cols;
      for (const [thick, ink] of [[width / 50, "#fff"], [width / 90, colour]]) {
        context.lineWidth = thick;
        context.strokeStyle = ink;
        context.strokeRect(col * side, row * side, side, side);
      }
    }

    function draw() {
      shown.textContent = data.blocks[block] + 1;
      slider.setAttribute("aria-valuetext", "block " + (data.blocks[block] + 1));
      button.setAttribute("aria-pressed", String(query === 0));
      const context = view.getContext("2d");
      context.setTransform(zoom, 0, 0, zoom, 0, 0); // in pixels of the picture
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0);
      context.strokeStyle = "rgba(255,255,255,0.35)";
      context.lineWidth = width / 300;
      context.beginPath();
      for (let col = 1; col < cols; col++) { context.moveTo(col * side, 0); context.lineTo(col * side, height); }
      for (let row = 1; row < rows; row++) { context.moveTo(0, row * side); context.lineTo(width, row * side); }
      context.stroke();
      if (pinned !== null) outline(context, pinned, "#0072b2");
      outline(context, query, "#cc79a7");
      text.textContent = told(query, fill(maps, query));
      below.hidden = pinned === null;
      if (pinned !== null) pinnedText.textContent = "Pinned. " + told(pinned, fill(pinnedMaps, pinned));
    }

    function look(token) { if (token !== query) { query = token; draw(); } }
    function pin() { pinned = pinned === query ? null : query; draw(); }
    const state = () => ({ query, block: data.blocks[block], pinned });
    Object.assign(root.explorer, { look, draw, state }); // for tests
    draw();
  }
}
