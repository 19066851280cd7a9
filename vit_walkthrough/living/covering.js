// Cover patches, silence heads, and see what becomes of the answer; beside it, where the class token looked before.
import { forward, grid, looks, softmax } from "./vit.js";
import { bars, button, draggable, element, figure, framed, gridLines, hint, largest, number, outline } from "./view.js";
import { painter, patchUnder, percent, picture, place, pointable, press, readout, scaleBar } from "./view.js";
import { strongest, switcher } from "./view.js";

const COUNT = 5; // patches that a button covers
const COVERED = "#0072b2", POINTED = "#cc79a7", SQUARE = "#e69f00";

// Named otherwise than the Python function, because vit.js has a `cover` of its own.
export function covering(stage, data, draw) {
  const { config, weights, classes, image, label, square, onSquare } = data, { depth, heads } = config;
  const { rows, cols, patches } = grid(config), untouched = forward(weights, config, image.numbers);
  const before = softmax(untouched.get("output")), map = looks(untouched, depth - 1, 0, config).subarray(1);
  const ranked = [...map.keys()].sort((one, other) => map[other] - map[one]);
  let covered = [], silenced = [], pointed = null, trace = untouched, now = before;

  // What stands where: the two pictures with buttons below, and the answer beside them; the heads; the sentence.
  hint(stage, "Click on patches, or drag over them, to cover them. "
    + "Does the answer change more where the map is bright?");
  const main = element("div", { class: "vit-covering" }, stage), row = element("div", { class: "vit-row" }, main);
  const how = ". Arrow keys choose a patch, Enter covers or uncovers it";
  const view = figure(row, image, { label: "What the model sees" + how, caption: "what the model sees" });
  const verdict = figure(row, image, { label: "Where the class token looked in the untouched picture" + how });
  const below = element("div", {}, main);
  scaleBar(below, data.inferno)(largest(map), 1 / (patches + 1));
  const controls = element("div", { class: "vit-controls" }, below);
  button(controls, `cover the map's strongest ${COUNT}`, () => change(ranked.slice(0, COUNT), silenced));
  const weakest = { "aria-label": `cover the map's weakest ${COUNT}` };
  button(controls, `weakest ${COUNT}`, () => change(ranked.slice(-COUNT), silenced), weakest);
  button(controls, "reset", () => change([], []));
  const side = element("div", { class: "vit-side" }, main);
  const answer = bars(side, classes, "what the model says", before);
  const key = "▏untouched; at the right: the change in percentage points";
  element("p", { class: "vit-covering-key", text: key }, side);
  const quiet = element("div", { class: "vit-covering-heads", role: "group", "aria-label": "silence heads" }, side);
  element("strong", { text: "silence heads" }, quiet);
  const switches = new Map(); // [block, head] -> its button
  for (let block = 0; block < depth; block++) {
    const line = element("div", { class: "vit-choice" }, quiet);
    element("span", { text: `block ${block}` }, line);
    for (let head = 0; head < heads; head++) {
      const pair = [block, head], label = { "aria-label": `silence head ${head} of block ${block}` };
      switches.set(pair, switcher(line, `head ${head}`, (pressed) =>
        change(covered, pressed ? [...silenced, pair] : silenced.filter((one) => one !== pair)), label));
    }
  }
  const tell = readout(stage), paintMap = painter(image, { rows, cols }, data.inferno);
  coverable(view);
  coverable(verdict);

  // A press covers or uncovers a patch; whatever is passed while pressed follows. A finger that scrolls undoes it.
  function coverable(shown) {
    const set = (patch, covers) => {
      if (patch === null || covered.includes(patch) === covers) return;
      change(covers ? [...covered, patch] : covered.filter((one) => one !== patch), silenced);
    };
    const turn = (patch) => set(patch, !covered.includes(patch));
    pointable(shown, { rows, cols },
      { current: () => pointed, point, enter: turn, letGo: () => point(null), leaves: true });
    let undo = null;
    draggable(shown.canvas, () => {
      const covers = !covered.includes(pointed);
      undo = covered;
      turn(pointed);
      return (event) => set(patchUnder(event, shown.canvas, { rows, cols }), covers);
    }, (cancelled) => { if (cancelled) change(undo, silenced); });
  }

  function change(patchesToCover, headsToSilence) {
    [covered, silenced, trace] = [patchesToCover, headsToSilence, null];
    draw();
  }
  function point(patch) { pointed = patch; draw(); }

  function paint() {
    trace ??= forward(weights, config, image.numbers, { covered, silenced });
    now = softmax(trace.get("output"));
    const { width, height } = view;
    view.context.drawImage(picture(trace.get("input"), config.channels, height, width).canvas, 0, 0);
    gridLines(view, { rows, cols });
    paintMap(verdict, map, largest(map));
    if (square) framed(verdict.context, square, width / 50, SQUARE);
    for (const shown of [view, verdict]) {
      for (const patch of covered) outline(shown, { rows, cols }, patch, COVERED);
      outline(shown, { rows, cols }, pointed, POINTED);
    }
    switches.forEach((made, pair) => press(made, silenced.includes(pair)));
    const orange = square ? "; orange: the square of the digit" : "";
    verdict.words.textContent = pointed === null ? `where ★ looked, untouched${orange}`
      : `${place(pointed, cols)}: ${number(map[pointed])} of the attention`;
    answer(now);
    tell(sentence());
  }

  function sentence() {
    const best = strongest(before), said = strongest(now);
    const truth = label === null ? "" : ` The digit is a ${classes[label]}.`;
    const first = `Untouched, the model says ${classes[best]} with ${percent(before[best])}.`;
    if (!covered.length && !silenced.length) return first + truth;
    const mass = covered.reduce((sum, patch) => sum + map[patch], 0);
    const inside = covered.filter((patch) => onSquare.includes(patch)).length;
    const many = `${covered.length} patch${covered.length === 1 ? "" : "es"}`;
    const where = square && covered.length ? ` (${inside} of them on the digit's square)` : "";
    const done = covered.length ? `You covered ${many}${where}, on which ${percent(mass)} of the attention lay. ` : "";
    const quiet = silenced.length ? `You silenced ${silenced.length} of ${depth * heads} heads. ` : "";
    const verb = said === best ? "is still" : "changed to";
    const answer = `The answer ${verb} ${classes[said]}, with ${percent(now[said])}.`;
    const fall = ` ${classes[best]} had ${percent(before[best])} and now has ${percent(now[best])}.`;
    return `${done}${quiet}${answer}${fall}${truth}`;
  }
  return { paint, state: () => ({ covered, silenced, pointed, now: Array.from(now) }) };
}
