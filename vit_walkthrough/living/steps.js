// One picture on its way from pixels to probabilities, in seven steps; every number is drawn and can be pointed at.
// The picture is the digit that came along, or one that the reader draws.
import { cached, forward, grid, looks, patchify, softmax } from "./vit.js";
import { writingPad } from "./pad.js";
import { ARROWS, bars, boxOf, button, choice, clamp, decimals, element, figure, framed, hint } from "./view.js";
import { hoverable, inPalette, keys, largest, namesOf, painter, percent, press, readout } from "./view.js";
import { sheet, signed, still, strongest, tinted } from "./view.js";

const STEPS = ["picture", "patches", "tokens", "★ first", "positions", "attention", "answer"];
const LAST = STEPS.length - 1, PATCH = "#0072b2", STAR = "#d55e00", POSITION = "#009e73";
const between = (low, share, high) => low + (high - low) * share;
const eased = (share) => { const x = clamp(0, share, 1); return x * x * (3 - 2 * x); };

export function steps(stage, data, draw) {
  const { config, classes, weights } = data, { rows, cols, patches, height, width } = grid(config);
  const { channels, dim, depth, patch_size: side } = config, inPlane = side * side, patchDim = channels * inPlane;
  const tokens = patches + 1, colours = namesOf(channels), ofMean = config.pooling === "mean";
  const positions = weights["position_embedding.positions"];
  const spectrum = sheet(1, 128, (shade) => inPalette(data.signed, shade / 127));
  let image = data.image, trace, probabilities, sheets, limits, paintMap, time = 0, pointed = null, goal = null;
  let step = 0, block = 0, ground = ""; // what is on its way, or shown, at `time`; the colour of words

  // What stands where: the choice of a picture, the pad, the seven dots, the scene, the sentence.
  const controls = element("div", { class: "vit-controls" }, stage);
  choice(controls, "picture", [[false, "the digit"], [true, "draw your own"]], Boolean(data.own), choose);
  const writing = element("div", { class: "vit-steps-pad" }, stage), pad = writingPad(writing, data.image, read);
  const seen = figure(writing, data.image, { label: "Where the class token looks in your drawing" });
  const answer = element("div", { class: "vit-steps-answer" }, writing);
  const answered = bars(answer, classes, "what the model says"), way = element("div", {}, stage);
  hint(way, "Press play, or drag the slider through the seven steps. Then point at any number.");
  const bar = element("div", { class: "vit-steps-bar" }, way);
  const range = element("input", { type: "range", max: LAST, step: still() ? 1 : 0.02, "aria-label": "step" }, bar);
  range.addEventListener("input", () => { goal = null; time = Number(range.value); draw(); });
  keys(range, (key) => {
    const next = Math.floor(time) + 1, last = Math.ceil(time) - 1;
    const to = { ArrowRight: next, ArrowUp: next, ArrowLeft: last, ArrowDown: last, Home: 0, End: LAST }[key];
    if (to !== undefined) go(clamp(0, to, LAST));
    return to !== undefined;
  });
  const dots = STEPS.map((name, one) => button(bar, name, () => go(one)));
  const told = element("p", { class: "vit-steps-told" }, way), play = button(told, "", () => {
    if (goal !== null) goal = null;
    else { if (time >= LAST) time = 0; run(LAST); }
    draw();
  });
  play.hidden = still();
  const headline = element("span", {}, told), tell = readout(stage);
  const scene = element("canvas", { class: "vit-points vit-steps-scene", tabindex: 0, role: "application",
    "aria-roledescription": "picture of numbers",
    "aria-label": "The numbers of this step. Arrow keys choose one." }, way);
  const ink = scene.getContext("2d"), map = element("canvas", { width, height }).getContext("2d");
  map.imageSmoothingEnabled = false;

  function choose(own) {
    writing.hidden = !own;
    if (own) pad.paint(); else show(data.image);
  }

  // A new picture: the whole forward pass.
  function show(next) {
    image = next;
    if (image) {
      trace = forward(weights, config, image.numbers);
      trace.set("patches", patchify(image.numbers, config)); // which are shown too, and so are the positions
      trace.set("positions", positions ?? new Float32Array(tokens * dim));
      [sheets, limits] = [new Map(), new Map()];
      probabilities = softmax(trace.get("output"));
      paintMap = painter(image, { rows, cols }, data.inferno);
    }
    way.hidden = !image;
    draw();
  }

  // Strips of the embedding share a scale, and so do those of the blocks. All but a hundredth of the numbers are
  // smaller than its end: a single outlier would leave the rest pale.
  function scaleOf(name) {
    const kin = name.startsWith("blocks") ? Array.from({ length: depth }, (_, one) => `blocks.${one}`)
      : name === "norm" ? ["norm"] : ["patch_embedding", "class_token", "position_embedding"];
    return cached(limits, kin[0], () => {
      const sizes = new Float32Array(kin.flatMap((one) => Array.from(trace.get(one), Math.abs))).sort();
      return sizes[Math.floor(0.99 * sizes.length)] || 1;
    });
  }

  // A tensor as a small canvas: a column for each token, a pixel for each number.
  function columnsOf(name) {
    const numbers = trace.get(name), high = name === "patches" ? patchDim : dim, count = numbers.length / high;
    return cached(sheets, name, () => sheet(high, count, (cell) => {
      const row = Math.floor(cell / count), number = numbers[(cell % count) * high + row];
      if (name !== "patches") return inPalette(data.signed, 0.5 + number / scaleOf(name) / 2);
      return tinted(number, Math.floor(row / inPlane), channels === 3 ? 3 : 1);
    }));
  }

  // Where things stand in a scene that is `across` wide: the strips right of the picture, or below it on a phone.
  function layout(across) {
    const wide = across >= 640, small = wide ? 200 : Math.min(150, across * 0.42), left = wide ? small + 32 : 0;
    const pitch = (across - left) / tokens, thumb = Math.min(26, pitch - 1), high = wide ? 320 : 256;
    const thumbs = (wide ? 0 : small * height / width + 8) + 58, top = thumbs + thumb + 4;
    const total = top + high + 54, large = Math.min(across, (total - 10) * width / height);
    const beside = wide ? { x: 0, y: small * height / width + 44, across: small }
      : { x: small + 14, y: 0, across: across - small - 14 };
    return { wide, left, pitch, thumbs, thumb, top, high, total, x: (token) => left + (token + 0.5) * pitch,
      small: { x: 0, y: 0, side: small }, large: { x: (across - large) / 2, y: 0, side: large }, bars: beside };
  }

  function paint() {
    const across = scene.clientWidth;
    step = Math.ceil(time - 1e-6);
    block = clamp(0, Math.floor((time - 4) * depth - 1e-6), depth - 1);
    sayAll();
    if (!image || !across) return;
    const at = layout(across), dense = devicePixelRatio || 1;
    const share = time - Math.max(0, step - 1);
    Object.assign(scene, { width: across * dense, height: at.total * dense }); // which wipes all
    scene.style.height = at.total + "px";
    ink.scale(dense, dense);
    Object.assign(ink, { imageSmoothingEnabled: false, textBaseline: "middle" });
    ground = getComputedStyle(stage).color;
    const found = looks(trace, block, query(), config);

    // The picture is cut, and a copy of each patch flies to its place in the row.
    const shrunk = eased((time - 0.25) / 0.6), gap = eased(time / 0.25);
    const [x, y, whole] = ["x", "y", "side"].map((name) => between(at.large[name], shrunk, at.small[name]));
    const cell = whole / cols, room = gap * Math.max(1, cell * 0.06);
    if (time > 4) paintMap({ context: map }, found.subarray(1), largest(found.subarray(1)));
    const cutOut = (pixels, patch, ...to) => ink.drawImage(pixels, ...boxOf(patch, cols, side), ...to);
    const frameOf = (patch) => boxOf(patch, cols, cell).map((one, at) => one + [x, y, 0, 0][at]);
    const places = Array.from({ length: patches }, (_, patch) => {
      const [left, top] = frameOf(patch);
      return [left + room / 2, top + room / 2, cell - room];
    });
    places.forEach(([x, y, size], patch) => cutOut(time > 4 ? map.canvas : image.canvas, patch, x, y, size, size));
    ink.globalAlpha = step < 6 || ofMean ? 1 : 1 - 0.7 * share;
    places.forEach((from, patch) => {
      const flown = eased((time - 0.3 - 0.3 * patch / patches) / 0.4);
      const to = [at.x(patch + 1) - at.thumb / 2, at.thumbs, at.thumb];
      const [x, y, size] = from.map((one, place) => between(one, flown, to[place]));
      if (flown > 0) cutOut(image.canvas, patch, x, y, size, size);
    });
    ink.globalAlpha = 1;
    if (step >= 1) columns(at, share);
    if (step >= 3) {
      const away = step > 3 ? 0 : 60 * (1 - eased(share)), look = { colour: STAR, size: Math.max(13, at.thumb) };
      write("★", at.x(0) - away + (at.wide ? 0 : 2), at.thumbs + at.thumb / 2, { ...look, align: "center" });
    }
    const pulse = 0.25 + 0.75 * Math.sin(Math.PI * ((time - 4) * depth - block));
    if (step >= 5) lines(at, found, step === 6 ? 1 - share : time === 5 ? 1 : pulse);
    if (step === 6) chart(at.bars, share);
    legend(at);
    if (pointed) mark(at, frameOf);
  }

  // Words to the right of a point, or about it or to its left. Returns how wide they are.
  function write(words, x, y, { colour = ground, size = 12, bold = "", align = "left" } = {}) {
    Object.assign(ink, { fillStyle: colour, font: `${bold} ${size}px system-ui, sans-serif`, textAlign: align });
    ink.fillText(words, x, y);
    return ink.measureText(words).width;
  }
  function fill(colour, ...box) { ink.fillStyle = colour; ink.fillRect(...box); }
  function query() { return pointed?.part === "strips" && step === 5 ? pointed.col : 0; }

  // The strips of numbers below the row of patches, on their way from one tensor to the next.
  function columns(at, share) {
    const strip = (name, { part = 1, alpha = 1, from = 0, to = tokens, up = 0 } = {}) => {
      const drawn = columnsOf(name), first = tokens - drawn.width, start = Math.max(from, first), count = to - start;
      if (count <= 0) return;
      ink.globalAlpha = alpha;
      ink.drawImage(drawn, start - first, 0, count, drawn.height * part,
        at.left + start * at.pitch, at.top - up, count * at.pitch, at.high * part);
      ink.globalAlpha = 1;
    };
    if (step === 1 && share < 0.7) return;
    if (step === 1) strip("patches", { part: eased((share - 0.7) / 0.3) });
    if (step === 2) { strip("patches"); strip("patch_embedding", { part: share }); }
    if (step === 3) { strip("patch_embedding"); strip("class_token", { part: eased(share), to: 1 }); }
    if (step === 4) { // the positions come from above, in a green frame, and sink into the tokens
      const up = (1 - eased(share / 0.8)) * at.top * 0.6;
      strip("class_token");
      strip("positions", { alpha: 0.8, up });
      strip("position_embedding", { alpha: eased((share - 0.8) / 0.2) });
      Object.assign(ink, { strokeStyle: POSITION, lineWidth: 2 });
      if (positions && share < 1) ink.strokeRect(at.left, at.top - up, at.pitch * tokens, at.high);
    }
    if (step === 5) {
      strip(block ? `blocks.${block - 1}` : "position_embedding");
      strip(`blocks.${block}`, { alpha: clamp(0, (time - 4) * depth - block, 1) });
    }
    if (step === 6) { // what the classification head does not read grows pale
      strip("norm", { alpha: 1 - 0.7 * share * ofMean, to: 1 });
      strip("norm", { alpha: 1 - 0.7 * share * !ofMean, from: 1 });
    }
    const gap = at.pitch > 16 ? 4 : 1;
    for (let token = 0; token <= tokens; token++)
      ink.clearRect(at.left + token * at.pitch - gap / 2, at.top, gap, at.high);
  }

  // Where a token looks: the more weight, the thicker the line.
  function lines(at, found, alpha) {
    const most = largest(found), from = query(), x = at.x(from);
    found.forEach((weight, key) => {
      if (weight < 0.01 * most || key === from) return;
      const to = at.x(key), high = Math.min(54, 12 + Math.abs(to - x) * 0.25);
      Object.assign(ink, { strokeStyle: from ? PATCH : STAR, globalAlpha: alpha, lineWidth: 0.6 + 5 * weight / most });
      ink.beginPath();
      ink.moveTo(x, at.thumbs - 2);
      ink.bezierCurveTo(x, at.thumbs - high, to, at.thumbs - high, to, at.thumbs - 2);
      ink.stroke();
    });
    ink.globalAlpha = 1;
  }

  function chart({ x, y, across }, share) {
    const best = strongest(probabilities), middle = (place) => y + place * 15 + 7;
    const wide = classes.map((name, place) => write(name, x, middle(place), { bold: place === best ? "bold" : "" }));
    const start = x + Math.max(...wide) + 10, room = x + across - 50 - start;
    probabilities.forEach((probability, place) => {
      const grown = probability * eased(share), top = middle(place) - 5;
      fill("rgba(128, 128, 128, 0.25)", start, top, room, 10);
      fill(place === best ? STAR : PATCH, start, top, room * grown, 10);
      write(percent(grown), x + across, middle(place), { align: "right" });
    });
  }

  // Below the strips: which place each one has, and what its colours mean.
  function legend(at) {
    const y = at.top + at.high + 12, every = Math.ceil(24 / at.pitch);
    for (let token = 0; positions && step >= 4 && token < tokens; token++) {
      fill(POSITION, at.x(token) - at.pitch * 0.4, y - 10, at.pitch * 0.8, 3);
      if (token % every === 0 && (tokens - token) * at.pitch > 10) write(token, at.x(token), y, { align: "center" });
    }
    if (time < 0.7) return;
    const brightest = channels === 3 ? "full red, green or blue" : "white";
    if (step === 1) return write(`from black (0) to ${brightest} (1)`, at.left, y + 24);
    const most = decimals(scaleOf(step < 5 ? "" : step === 5 ? "blocks" : "norm")), wide = at.wide ? 128 : 77;
    const from = at.left + write(`−${most} and less`, at.left, y + 24) + 6;
    ink.drawImage(spectrum, from, y + 18, wide, 11);
    write(`${most} and more`, from + wide + 7, y + 24);
  }

  // A frame around the number that is pointed at, its strip, and its patch in the picture.
  function mark(at, frameOf) {
    const place = fields(at).find((one) => one.part === pointed.part);
    if (!place) return;
    const wide = place.across / place.cols, high = place.high / place.rows, { row, col } = pointed;
    if (place.part === "strips") {
      if (col) framed(ink, frameOf(col - 1), 5, PATCH);
      Object.assign(ink, { strokeStyle: ground, lineWidth: 1 });
      ink.strokeRect(place.x + col * wide, place.y, wide, place.high);
    }
    const [w, h] = [Math.max(6, wide), Math.max(6, high)], colour = col || place.part !== "strips" ? PATCH : STAR;
    framed(ink, [place.x + (col + 0.5) * wide - w / 2, place.y + (row + 0.5) * high - h / 2, w, h], 5, colour);
  }

  // What can be pointed at in a step.
  function fields(at) {
    const { x, y, side: large } = at.large, high = large * height / width;
    if (step === 0) return [{ part: "pixels", x, y, across: large, high, rows: height, cols: width, first: 0 }];
    const strips = { part: "strips", x: at.left, y: at.top, across: at.pitch * tokens, high: at.high,
      rows: step === 1 ? patchDim : dim, cols: tokens, first: step < 3 ? 1 : 0 };
    const scores = { part: "bars", ...at.bars, high: 15 * classes.length, rows: classes.length, cols: 1, first: 0 };
    return step < LAST ? [strips] : [scores, strips];
  }

  function point(part, row, col) {
    if (pointed?.part === part && pointed.row === row && pointed.col === col) return;
    pointed = { part, row, col };
    draw();
  }
  hoverable(scene, (event) => {
    const frame = scene.getBoundingClientRect(), x = event.clientX - frame.left, y = event.clientY - frame.top;
    for (const one of fields(layout(frame.width))) {
      const row = Math.floor((y - one.y) / one.high * one.rows), col = Math.floor((x - one.x) / one.across * one.cols);
      if (row >= 0 && row < one.rows && col >= one.first && col < one.cols) return point(one.part, row, col);
    }
  });
  keys(scene, (key) => {
    if (key === "Escape") { pointed = null; draw(); }
    if (!(key in ARROWS)) return key === "Escape";
    const [down, right] = ARROWS[key], all = fields(layout(scene.clientWidth));
    const same = all.find(({ part }) => part === pointed?.part), one = same ?? all[0];
    const { row, col } = same ? pointed : { row: -down, col: one.first - right };
    point(one.part, clamp(0, row + down, one.rows - 1), clamp(one.first, col + right, one.cols - 1));
    return true;
  });

  function sayAll() {
    range.value = time;
    range.setAttribute("aria-valuetext", STEPS[step]);
    dots.forEach((dot, one) => press(dot, one === step));
    play.textContent = goal === null ? "▶ play" : "❚❚ stop";
    if (!image) return tell("The pad is empty. Draw a digit from 0 to 9 on it, or choose an example.");
    const best = strongest(probabilities), share = percent(probabilities[best]);
    const who = query() ? `patch ${query() - 1}` : "the class token";
    const most = largest(looks(trace, block, query(), config));
    const reads = ofMean ? "the mean of the patches' tokens" : "the class token";
    headline.textContent = [
      `The picture is ${channels} x ${height} x ${width} numbers between 0 and 1.`,
      `The picture is cut into ${rows} x ${cols} patches. They line up in reading order, `
        + `and below each one stand its ${patchDim} numbers.`,
      `A learned matrix turns the ${patchDim} numbers of each patch into ${dim}. These ${dim} numbers are its token.`,
      "One more token comes first: the class token ★. It belongs to no patch, and it will collect the answer.",
      positions ? `Every place has ${dim} numbers of its own. They are added to the token that stands there.`
        : "This model adds no positions: the tokens stay as they are.",
      `Block ${block} of 0 to ${depth - 1}: every token looks at all tokens and takes from them. The lines show where `
        + `${who} looks: mean of the heads, at most ${decimals(most)}.`,
      `The classification head reads ${reads} only, and turns it into ${classes.length} probabilities.`,
    ][step];
    const hint = "Point at a number, and this line says its name and where it comes from.";
    tell((pointed && sentence())
      || (step === 6 || !writing.hidden ? `The model says ${classes[best]}, with ${share}.` : hint));
  }

  // The name, the place, the shape and the origin of the number that is pointed at.
  function sentence() {
    const { part, row, col } = pointed;
    if (part === "pixels" && step === 0) {
      const at = (channel) => image.numbers[(channel * height + row) * width + col];
      const each = colours.map((colour, channel) => `${colour} ${decimals(at(channel))}`).join(", ");
      return `input[:, ${row}, ${col}] of shape (${channels}, ${height}, ${width}): the pixel in row ${row}, `
        + `column ${col} is ${each}. It comes from the picture.`;
    }
    if (part === "bars" && step === LAST)
      return `head[${row}] = ${decimals(trace.get("head")[row])} of shape (${classes.length}): the score of `
        + `${classes[row]}. The softmax makes ${percent(probabilities[row])} of it.`;
    if (part !== "strips" || step < 1) return "";
    const name = [, "patches", "patch_embedding", "class_token", "position_embedding", `blocks.${block}`, "norm"][step];
    const high = step === 1 ? patchDim : dim, count = trace.get(name).length / high, patch = col - 1;
    const token = step < 3 ? patch : col, here = `[${token}, ${row}]`, inside = row % inPlane;
    if (token < 0 || row >= high) return "";
    const value = (of) => trace.get(of)[token * high + row];
    const plus = (of) => signed(value(of)).replace(/^[+−]?/, (sign) => `${sign || "+"} `);
    const before = block ? `blocks.${block - 1}` : "position_embedding";
    const origin = [
      null,
      () => `${colours[Math.floor(row / inPlane)]} of the pixel in `
        + `row ${Math.floor(patch / cols) * side + Math.floor(inside / side)}, `
        + `column ${(patch % cols) * side + (inside % side)} of the picture; it lies in patch ${patch}.`,
      () => `number ${row} of the token of patch ${patch}. It is the sum of the patch's ${patchDim} numbers, `
        + "each times a learned weight, plus a bias.",
      () => col ? `it is patch_embedding[${patch}, ${row}], one place later.`
        : `number ${row} of the class token. It is learned, and the same for every picture.`,
      () => `${decimals(value("class_token"))} of class_token${here} ${plus("positions")} of place ${token}.`,
      () => `${decimals(value(before))} of ${before}${here} ${plus(`blocks.${block}.attention`)} that attention found `
        + `${plus(`blocks.${block}.mlp`)} from the MLP.`,
      () => `number ${row} of this token after the last norm. The classification head `
        + `${!col === ofMean ? "does not read it" : ofMean ? "reads the mean of all patches" : "reads it"}.`,
    ][step];
    return `${name}${here} = ${decimals(value(name))} of shape (${count}, ${high}): ${origin()}`;
  }

  // Moving along: at once, or by itself towards a goal; the blocks take longer.
  function go(to) {
    if (still()) { time = to; draw(); } else run(to, 0.7 / Math.max(1, Math.abs(to - time)));
  }
  function run(to, seconds = 1.7) {
    let last = performance.now();
    goal = to;
    const next = (now) => {
      if (goal !== to) return;
      const pace = (now - last) / 1000 / (seconds * (seconds > 1 && time >= 4 && time < 5 ? 2 : 1));
      last = now;
      time = to > time ? Math.min(to, time + pace) : Math.max(to, time - pace);
      if (time === to) goal = null; else requestAnimationFrame(next);
      draw();
    };
    requestAnimationFrame(next);
  }

  // What the model says of a drawing, and where its class token looks. Of an empty pad nothing is claimed.
  function read(drawing) {
    [seen.frame.hidden, answer.hidden] = [!drawing, !drawing];
    show(drawing);
    if (!drawing) return;
    answered(probabilities);
    const found = looks(trace, depth - 1, 0, config).subarray(1), most = largest(found);
    paintMap(seen, found, most);
    seen.words.textContent = "What the model gets: your digit in the size of its training digits. "
      + `Bright: where the class token ★ looks (block ${depth - 1}, at most ${decimals(most)}).`;
  }
  new ResizeObserver(draw).observe(stage);
  choose(Boolean(data.own)); // the site's first page opens on the pad
  return { paint, state: () => ({ time, pointed }), probabilities: () => image && probabilities, image: () => image };
}
