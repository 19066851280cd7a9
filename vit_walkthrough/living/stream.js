// The stream of tokens from the embedding through the blocks, read after each of them; tap on what each block adds, and
// it is skipped, or it takes the place of the stream.
import { classify, forward, layerNorm, pool, softmax } from "./vit.js";
import { adjust, button, capital, decimals, element, hint, hoverable, keys, percent, press } from "./view.js";
import { readout, shape, spotUnder, strongest } from "./view.js";

const STATES = ["added", "skipped", "alone"];
const WIDE = 288, TURN = 18, BACK = 48, LINE = 16; // of a side branch, in pixels: it leaves at TURN, is back at BACK

export function stream(stage, data, draw) {
  const { config, weights, classes, image } = data, { depth, dim } = config, ofMean = config.pooling === "mean";
  const states = new Map(); // "blocks.1.mlp" -> a state other than "added"; "blocks.1.norm_2" -> "off"
  const named = (state) => [...states.keys()].filter((name) => states.get(name) === state);
  const untouched = readings(forward(weights, config, image.numbers), []);
  let now = untouched, pointed = null;

  hint(stage, "Tap on attention or MLP: it is added, skipped, or alone (it replaces the stream). "
    + "Tap on a norm to switch it off.");
  const controls = element("div", { class: "vit-controls" }, stage);
  button(controls, "reset", () => { states.clear(); compute(); });
  element("span", { class: "vit-stream-key", text: "bar: now   ▔ line: untouched" }, controls);
  const flow = element("div", { class: "vit-stream" }, stage), stations = [], branches = [];
  const start = element("div", { class: "vit-stream-start" }, flow);
  start.append(adjust(image.canvas, { role: "img", "aria-label": "the picture" }));
  const words = "This picture goes in. Each ★ is a station: there we ask what the head would say already.";
  element("span", { text: words }, start);
  addStation("after the embedding", 0);
  for (let block = 0; block < depth; block++) {
    addBranch(`blocks.${block}.attention`, `blocks.${block}.norm_1`, "attention", block);
    addBranch(`blocks.${block}.mlp`, `blocks.${block}.norm_2`, "MLP", block);
    addStation(`after block ${block}`, block + 1);
  }
  const end = element("div", { class: "vit-stream-end" }, flow);
  const finalNorm = button(end, "", () => turn("norm", [undefined, "off"]));
  element("span", { text: "→ classification head. Each station is read through these two." }, end);
  const tell = readout(stage);

  // What the last norm and the classification head would say of the tokens at each station, and how long is what they
  // read there before the norm.
  function readings(trace, unnormed) {
    const names = ["position_embedding", ...Array.from({ length: depth }, (_, block) => `blocks.${block}`)];
    return names.map((name) => {
      const tokens = ofMean ? trace.get(name) : trace.get(name).subarray(0, dim); // only the class token is read
      const normed = unnormed.includes("norm") ? tokens : layerNorm(tokens, "norm", weights);
      const said = softmax(classify(normed, weights, config)), length = Math.hypot(...pool(tokens, config));
      return { said, best: strongest(said), length, sound: said.every(Number.isFinite) };
    });
  }

  function turn(name, order) {
    const next = order[(order.indexOf(states.get(name)) + 1) % order.length];
    if (next) states.set(name, next); else states.delete(name);
    compute();
  }

  // A station: the star on the stream, and a row of bars that can be pointed at.
  function addStation(name, at) {
    const mark = element("div", { class: "vit-stream-mark" }, flow);
    element("span", { class: "vit-stream-star", text: ofMean ? "●" : "★", "aria-hidden": "true" }, mark);
    element("strong", { text: name }, mark);
    const box = element("div", { class: "vit-stream-read", tabindex: 0, role: "application",
      "aria-roledescription": "row of bars" }, flow);
    const words = element("div", { class: "vit-stream-words" }, box);
    const row = element("div", { class: "vit-stream-bars" }, box);
    row.style.gridTemplateColumns = `repeat(${classes.length}, 1fr)`;
    const bars = classes.map((one, place) => {
      const cell = element("div", { title: one }, row), track = element("span", {}, cell);
      const bar = element("i", {}, track), was = element("b", {}, track);
      was.style.bottom = percent(untouched[at].said[place]);
      return { cell, bar, label: element("span", { text: one }, cell) };
    });
    const placeUnder = (event) => Math.floor(0.9999 * spotUnder(event, row)[0] * classes.length);
    hoverable(row, (event) => point(at, placeUnder(event)), () => point(null));
    box.addEventListener("blur", () => point(null));
    keys(box, (key) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!by) return false;
      point(at, pointed?.at === at ? (pointed.place + by + classes.length) % classes.length : now[at].best);
      return true;
    });
    stations.push({ name, box, words, bars });
  }

  // A half of a block: it leaves the stream, passes a norm, computes, and comes back to a plus.
  function addBranch(name, norm, text, block) {
    const row = element("div", { class: "vit-stream-branch" }, flow);
    const drawing = shape("svg", { width: WIDE, height: 60, "aria-hidden": "true" }, row);
    drawing.innerHTML = `<path class="vit-stream-line" d="M${LINE} 0V${TURN}M${LINE} ${BACK}V60"/>
      <path class="vit-stream-line vit-stream-beside" d="M${LINE} ${TURN}V${BACK}"/>
      <path class="vit-stream-way" d="M${LINE} ${TURN}H40M114 ${TURN}H126M272 ${TURN}H280Q286 ${TURN} 286 ${TURN + 6}
        V${BACK - 6}Q286 ${BACK} 280 ${BACK}H27M34 ${BACK - 5}L27 ${BACK}L34 ${BACK + 5}"/>
      <circle cx="${LINE}" cy="${BACK}" r="10" fill="#0072b2"/><text x="${LINE}" y="${BACK + 5}"></text>`;
    const norms = button(row, "", () => turn(norm, [undefined, "off"]), { class: "vit-stream-norm" });
    const half = button(row, "", () => turn(name, [undefined, "skipped", "alone"]), { class: "vit-stream-half" });
    branches.push({ name, norm, text, block, row, sign: drawing.lastChild, norms, half });
  }

  function paintBranch({ name, norm, text, block, row, sign, norms, half }) {
    const state = states.get(name) ?? "added", next = STATES[(STATES.indexOf(state) + 1) % 3];
    row.dataset.state = state;
    sign.textContent = { added: "+", skipped: "×", alone: "=" }[state];
    half.textContent = `${text}: ${state}`;
    half.setAttribute("aria-label", `${text} of block ${block} is ${state}; press, and it is ${next}`);
    showNorm(norms, `norm before ${text} of block ${block}`, states.has(norm));
  }

  function showNorm(made, name, off) {
    made.textContent = off ? "no norm" : "norm";
    made.setAttribute("aria-label", `${name} is ${off ? "off" : "on"}`);
    press(made, off);
  }

  function compute() {
    const unnormed = named("off"), options = { skipped: named("skipped"), alone: named("alone"), unnormed };
    now = states.size ? readings(forward(weights, config, image.numbers, options), unnormed) : untouched;
    draw();
  }

  function paint() {
    branches.forEach(paintBranch);
    showNorm(finalNorm, "the last norm", states.has("norm"));
    stations.forEach(paintStation);
    tell(pointed ? sentence() : summary());
  }

  function paintStation({ name, box, words, bars }, at) {
    const { said, best, length, sound } = now[at], was = untouched[at];
    const differs = !sound || was.said.some((share, place) => Math.abs(share - said[place]) > 5e-4);
    const longer = decimals(length) === decimals(was.length) ? "" : ` (was ${decimals(was.length)})`;
    const usual = `untouched: ${classes[was.best]}, ${percent(was.said[was.best])}`;
    const texts = [sound ? `${classes[best]}, ${percent(said[best])}` : "numbers too large to read",
      differs ? usual : "", `length ${decimals(length)}${longer}`];
    words.replaceChildren(...texts.map((text, at) => element(at ? "span" : "strong", { text })));
    bars.forEach(({ cell, bar, label }, place) => {
      bar.style.height = sound ? percent(said[place]) : "0";
      bar.style.background = place === best ? "#d55e00" : "#0072b2";
      label.style.fontWeight = place === best ? "bold" : "";
      cell.classList.toggle("vit-stream-pointed", pointed?.at === at && pointed.place === place);
    });
    const all = classes.map((one, place) => `${one} ${percent(said[place])}`).join(", ");
    box.setAttribute("aria-label", `${name}, the head would say: ${all}`);
  }

  const told = ({ said, best, length, sound }) =>
    sound ? `“${classes[best]}” (${percent(said[best])}, length ${decimals(length)})`
      : "nothing, because the numbers are too large to read";
  const list = (all) => all.map((one, at) => `${stations[at].name}: ${told(one)}`).join("; ");
  const summary = () => states.size ? `Now the head would say ${list(now)}. Untouched it would say ${list(untouched)}.`
    : `Untouched, the head would say ${list(untouched)}.`;
  function sentence() {
    const { at, place } = pointed, is = now[at], was = untouched[at], who = ofMean ? "mean token" : "class token";
    const shares = `${percent(is.said[place])}; untouched ${percent(was.said[place])}`;
    return `${capital(stations[at].name)}, the head would give ${classes[place]} ${shares}. `
      + `The ${who} has length ${decimals(is.length)} here; untouched ${decimals(was.length)}.`;
  }

  function point(at, place) {
    const next = at === null ? null : { at, place };
    if (next?.at === pointed?.at && next?.place === pointed?.place) return;
    pointed = next;
    draw();
  }
  const plain = ({ said, length }) => ({ said: Array.from(said), length });
  return { paint, state: () => Object.fromEntries(states), readings: () => now.map(plain) };
}
