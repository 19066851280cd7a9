// What the living pictures share: how data arrive, controls, patches to point at, maps, scales and bars.

// Brings a picture to life. root holds its data and its still. build(stage, data, draw) fills an empty div and returns
// {paint, ...}: draw asks for a paint; the rest is for tests.
export function mount(root, build) {
  if (root.living) return; // a restored page, or one that holds the output twice, runs its scripts again
  root.living = {};
  for (const old of root.querySelectorAll(".vit-alive")) old.remove(); // of a page that was saved alive
  const still = root.querySelector(".vit-still"), stage = element("div", { class: "vit-alive" });
  try {
    const data = decode(JSON.parse(root.querySelector("script[type='application/json']").textContent));
    if (data.weights) data.weights = inFull(data.weights);
    if (data.image) data.image = pictureOf(data.image);
    Object.assign(root.living, build(stage, data, frames(() => root.living.paint())));
    root.living.paint();
    still.hidden = true;
  } catch (error) {
    still.hidden = false;
    stage.replaceChildren(element("p", { role: "alert", text: "This picture does not answer: " + error.message }));
  }
  still.after(stage); // before this script: when a page that was saved alive is read, it is there already
}

// Tensors arrive as {type, shape, data}. They become typed arrays with a shape.
export function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (typeof value !== "object" || value === null) return value;
  if (typeof value.data !== "string")
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, decode(one)]));
  const letters = value.data.split(",")[1];
  const bytes = Uint8Array.fromBase64?.(letters) ?? Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
  const kinds = { int8: Int8Array, uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array };
  return Object.assign(new kinds[value.type](bytes.buffer), { shape: value.shape });
}

// Weights of 8 bits with a scale for each row become float32, to the last bit as checkpoint.in_full does it.
export function inFull(small) {
  const full = {};
  for (const name of Object.keys(small).filter((name) => !name.endsWith(".scale"))) {
    const scale = small[name + ".scale"], length = small[name].shape.at(-1);
    const numbers = full[name] = scale ? new Float32Array(small[name]) : small[name];
    for (let row = 0, at = 0; row < scale?.length; row++)
      for (const end = at + length; at < end; at++) numbers[at] *= scale[row];
  }
  return full;
}

// A tensor as the list of its parts along the first axis.
export function unbind(tensor) {
  const [count, ...shape] = tensor.shape, size = tensor.length / count;
  const part = (at) => Object.assign(tensor.subarray(at * size, (at + 1) * size), { shape });
  return Array.from({ length: count }, (_, at) => part(at));
}

// Images arrive in levels of 8 bits, or of 16 where a model reads them.
export function pictureOf(levels) {
  const white = levels.BYTES_PER_ELEMENT === 1 ? 255 : 65535;
  return picture(Float32Array.from(levels, (level) => level / white), ...levels.shape);
}

// Numbers (channels height width) in [0, 1] and a canvas that shows them; one channel is grey.
export function picture(numbers, channels, height, width) {
  const colour = (at) => [0, 1, 2].map((channel) => 255 * numbers[(channel % channels) * height * width + at]);
  return { numbers, channels, height, width, canvas: sheet(height, width, colour) };
}

// A canvas of one pixel for each cell, which pictures enlarge: colourOf(cell) gives red, green and blue from 0 to 255.
export function sheet(rows, cols, colourOf, canvas = element("canvas", { width: cols, height: rows })) {
  const context = canvas.getContext("2d"), frame = context.createImageData(cols, rows);
  frame.data.fill(255);
  for (let cell = 0; cell < rows * cols; cell++) frame.data.set(colourOf(cell), 4 * cell);
  context.putImageData(frame, 0, 0);
  return canvas;
}

// An element, or a shape of an SVG, with its text and its attributes, at the end of `parent`.
export const element = (kind, given = {}, parent = null) => added(document.createElement(kind), given, parent);
export const shape = (kind, given, parent) =>
  added(document.createElementNS("http://www.w3.org/2000/svg", kind), given, parent);
function added(made, { text = "", ...attributes }, parent) {
  adjust(made, attributes).textContent = text;
  parent?.append(made);
  return made;
}
export function adjust(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A function that asks for a drawing. However often it is asked, there is one for each frame of the screen.
export function frames(draw) {
  let asked = false;
  return () => {
    if (!asked) requestAnimationFrame(() => { asked = false; draw(); });
    asked = true;
  };
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Keys that a control uses must not reach the notebook, which would take them for commands. use(key) says whether the
// key was of use, or "native" where the browser does the rest.
export function keys(control, use) {
  control.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's
  control.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return; // Shift+Enter is the notebook's
    const used = use(event.key);
    if (used) event.stopPropagation();
    if (used && used !== "native") event.preventDefault();
  });
}
export const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }; // rows, columns

export function button(parent, text, act, attributes = {}) {
  const made = element("button", { type: "button", text, ...attributes }, parent);
  made.addEventListener("click", () => act(made));
  keys(made, (key) => (key === "Enter" || key === " ") && "native");
  return made;
}

// Buttons of which one is pressed. act(value) is told when the reader presses one; choose(value) only shows it.
export function choice(parent, label, options, chosen, act) {
  const group = element("div", { class: "vit-choice", role: "group", "aria-label": label }, parent);
  element("span", { text: label, "aria-hidden": "true" }, group);
  const buttons = options.map(([value, text]) => button(group, text, () => { choose(value); act(value); }));
  const choose = (value) => options.forEach(([one], at) => press(buttons[at], one === value));
  choose(chosen);
  return { group, choose };
}
export function press(made, pressed) { made.setAttribute("aria-pressed", pressed); }

export function switcher(parent, text, act, attributes = {}) {
  return button(parent, text, (made) => {
    const pressed = made.getAttribute("aria-pressed") !== "true";
    press(made, pressed);
    act(pressed);
  }, { "aria-pressed": "false", ...attributes });
}

export const hint = (parent, text) => element("p", { class: "vit-hint", text }, parent);

// The sentence below a picture, which screen readers hear when it changes.
export function readout(parent) {
  const text = element("p", { class: "vit-text", "aria-live": "polite" }, parent);
  return (sentence) => { if (text.textContent !== sentence) text.textContent = sentence; };
}

// A figure with a caption; draw into figure.context in units of the picture's pixels.
export function figure(parent, image, { label, caption = "", kind = "" }) {
  const zoom = Math.max(1, Math.ceil((kind === "vit-small" ? 200 : 480) / image.width)); // for thin lines
  const frame = element("figure", { class: "vit-figure " + kind }, parent), { width, height } = image;
  const size = { width: width * zoom, height: height * zoom };
  const canvas = element("canvas", { ...size, role: "img", "aria-label": label }, frame);
  const words = element("figcaption", { text: caption }, frame), context = canvas.getContext("2d");
  context.scale(zoom, zoom);
  context.imageSmoothingEnabled = false;
  return { frame, canvas, context, words, width, height };
}

// Where a pointer is: 0 is the left or the upper end of what is shown, 1 the other end.
export function spotUnder(event, shown) {
  const box = shown.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// The patch under a pointer, or null beside the picture.
export function patchUnder(event, canvas, { rows, cols }) {
  const [across, down] = spotUnder(event, canvas), col = Math.floor(across * cols), row = Math.floor(down * rows);
  return row < 0 || col < 0 || row >= rows || col >= cols ? null : row * cols + col;
}

// What is held and dragged with a mouse or a finger. start(event) returns what follows each move; end(cancelled) is
// told of the end: cancelled means that the finger scrolls the page instead.
export function draggable(target, start, end = () => {}) {
  let follow = null;
  target.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    target.setPointerCapture(event.pointerId);
    follow = start(event);
  });
  target.addEventListener("pointermove", (event) => follow?.(event));
  for (const kind of ["pointerup", "pointercancel"])
    target.addEventListener(kind, () => {
      if (follow) end(kind === "pointercancel");
      follow = null;
    });
}

// point(event) whenever a pointer moves over something or presses it; leave() when a mouse has left it.
export function hoverable(target, point, leave = () => {}) {
  for (const kind of ["pointermove", "pointerdown"]) target.addEventListener(kind, point);
  target.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
}

// Patches to point at with a mouse, a finger or the arrow keys. point(patch) is told of another one than current();
// pick(patch) is called after a click, a second tap on the same patch, or Enter; enter(patch), where given, after Enter
// instead. Home points at `home`, Escape calls letGo, and with `leaves` so does a mouse that leaves.
export function pointable({ canvas }, patches, options) {
  const { rows, cols } = patches, { current, point, pick = () => {}, enter = pick, home = 0 } = options;
  const { letGo = () => {}, leaves } = options;
  // Of an image, screen readers would keep the arrow keys for themselves.
  adjust(canvas, { tabindex: 0, role: "application", "aria-roledescription": "picture in patches" });
  canvas.classList.add("vit-points");
  let pressed = null;
  const at = (event) => patchUnder(event, canvas, patches);
  const go = (patch) => { if (patch !== null && patch !== current()) point(patch); };
  canvas.addEventListener("pointerdown", (event) => {
    pressed = event.pointerType !== "touch" || current() === at(event) ? at(event) : null;
  });
  hoverable(canvas, (event) => go(at(event)), leaves ? letGo : undefined);
  canvas.addEventListener("click", (event) => { if (pressed !== null && pressed === at(event)) pick(pressed); });
  keys(canvas, (key) => {
    const patch = current();
    if (key in ARROWS) {
      const row = Math.floor(patch / cols) + ARROWS[key][0], col = (patch % cols) + ARROWS[key][1];
      if (patch === null || patch < 0) go(0);
      else if (row >= 0 && row < rows && col >= 0 && col < cols) go(row * cols + col);
    } else if (key === "Home") go(home);
    else if (key === "Enter" || key === " ") enter(patch);
    else if (key === "Escape") letGo();
    else return false;
    return true;
  });
}

// The lines between patches.
export function gridLines({ context, width, height }, { rows, cols }, lineWidth = width / 300, alpha = 0.35) {
  Object.assign(context, { lineWidth, strokeStyle: `rgba(255,255,255,${alpha})` });
  context.beginPath();
  for (let patch = 0; patch < rows * cols; patch++) context.rect(...boxOf(patch, cols, width / cols, height / rows));
  context.stroke();
}

// A frame in a colour on white.
export function framed(context, [left, top, width, height], thick, colour) {
  for (const [lineWidth, strokeStyle] of [[thick, "#fff"], [thick / 2, colour]]) {
    Object.assign(context, { lineWidth, strokeStyle });
    context.strokeRect(left, top, width, height);
  }
}

export function outline(shown, { rows, cols }, patch, colour) {
  if (patch === null || patch < 0) return;
  framed(shown.context, boxOf(patch, cols, shown.width / cols, shown.height / rows), shown.width / 37, colour);
}

// left, top, width and height of a patch: those of one are `wide` and `high`.
export const boxOf = (patch, cols, wide, high = wide) =>
  [(patch % cols) * wide, Math.floor(patch / cols) * high, wide, high];

// Where a number of an array of three axes comes to stand when the first two are swapped. So a patch's row of numbers,
// (channel, y, x), becomes a picture with the channels side by side, (y, channel, x), and the other way round.
export const swapped = (at, [first, second, third]) =>
  ((Math.floor(at / third) % second) * first + Math.floor(at / (second * third))) * third + at % third;

// Some round numbers from low to high, at most seven.
export function ticks(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power, first = Math.ceil(low / step);
  return Array.from({ length: 7 }, (_, at) => (first + at) * step).filter((value) => value <= high);
}

// What paints maps of patches over a picture that is made grey and dim, in the colours of `palette` (256 x 3 bytes).
export function painter({ numbers, width, height, channels }, { rows, cols }, palette) {
  const size = width * height, parts = [0.299, 0.587, 0.114].map((part, at) => [part, (at % channels) * size]);
  const grey = sheet(height, width, (at) =>
    Array(3).fill(parts.reduce((sum, [part, from]) => sum + 255 * part * numbers[from + at], 0)));
  const colours = element("canvas", { width: cols, height: rows }); // one for all maps: to make another takes longer
  return ({ context }, values, most) => {
    sheet(rows, cols, (patch) => inPalette(palette, values[patch] / (most || 1e-9)), colours);
    context.drawImage(grey, 0, 0);
    context.globalAlpha = 0.7;
    context.drawImage(colours, 0, 0, width, height);
    context.globalAlpha = 1;
  };
}

// The bar of a scale: from 0 to the largest, with a tick where everything would be alike.
export function scaleBar(parent, palette) {
  const frame = element("div", { class: "vit-scale", role: "img" }, parent);
  frame.append(sheet(1, 256, (level) => inPalette(palette, level / 255)));
  const [, tick, most] = ["0", "", ""].map((text) => element("span", { text }, frame));
  return (largest, alike) => {
    tick.className = alike > 0.6 * largest ? "vit-tick vit-before" : "vit-tick"; // its words stay within the bar
    most.textContent = number(largest);
    tick.textContent = number(alike) + " everywhere alike";
    tick.style.left = Math.min(100, (100 * alike) / largest) + "%";
    const label = `colours from 0 to ${number(largest)}; everywhere alike would be ${number(alike)}`;
    return adjust(frame, { "aria-label": label });
  };
}

// Bars of what a model says of each class, below a title; the best is marked. With `before`, what it said then, each
// bar has a line there, and the change in percentage points beside it.
export function bars(parent, names, title, before = null) {
  element("strong", { text: title }, parent);
  const frame = element("div", { class: before ? "vit-bars vit-changes" : "vit-bars", role: "img" }, parent);
  const rows = names.map((name, at) => {
    element("span", { text: name }, frame);
    const { track, show } = meter(frame);
    if (before) element("b", { style: `left: ${percent(before[at])}` }, track);
    return { show, moved: before && element("span", { class: "vit-number" }, frame) };
  });
  return (shares) => {
    const best = strongest(shares), said = shares.map(percent);
    const changes = before && shares.map((share, at) => signed(100 * (share - before[at]), 1));
    rows.forEach(({ show, moved }, at) => {
      show(shares[at], said[at], at === best ? "#d55e00" : "#0072b2");
      if (before) moved.textContent = changes[at];
    });
    const told = names.map((name, at) => `${name} ${said[at]}` + (before ? ` (${changes[at]} points)` : ""));
    frame.setAttribute("aria-label", `${title}: ${told.join(", ")}`);
  };
}

// A bar on a track, with words beside it.
export function meter(parent) {
  const track = element("span", { class: "vit-track" }, parent), bar = element("i", {}, track);
  const beside = element("span", { class: "vit-number" }, parent);
  const show = (share, words, background = "") => {
    Object.assign(bar.style, { width: percent(share), background });
    beside.textContent = words;
  };
  return { track, show };
}

export const inGrid = (patch, cols) => `row ${Math.floor(patch / cols)}, column ${patch % cols}`;
export const place = (patch, cols) => patch < 0 ? "the class token" : `the patch in ${inGrid(patch, cols)}`;
export const percent = (share) => (100 * share).toFixed(1) + "%";
export const decimals = (value, digits = 2) => value.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
export function signed(value, digits = 2) {
  const text = decimals(value, digits);
  return value > 0 && Number(text) ? "+" + text : text;
}
export const number = (value) => value === 0 ? "0" : value < 1e-4 ? value.toExponential(0) : value.toPrecision(2);
export const capital = (sentence) => sentence[0].toUpperCase() + sentence.slice(1);
export const clamp = (low, value, high) => Math.max(low, Math.min(high, value));
export const largest = (values) => values.reduce((one, other) => Math.max(one, other), -Infinity);
export const strongest = (values) => values.indexOf(largest(values));

// A value in [0, 1] of one channel: a shade of red, green or blue, or grey where there is one channel only.
export const tinted = (value, channel, channels) =>
  [0, 1, 2].map((one) => channels === 1 || one === channel ? 255 * value : 0);
export function inPalette(palette, share) {
  const shade = 3 * clamp(0, Math.round(255 * share), 255);
  return palette.subarray(shade, shade + 3);
}
export const namesOf = (channels) => channels === 3 ? ["red", "green", "blue"]
  : Array.from({ length: channels }, (_, channel) => `channel ${channel}`);
