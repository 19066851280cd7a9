// Drag the query's tip among the keys: scores, weights, and the output, which is the weighted sum of the values.
// All are vectors of two numbers, and so arrows in a plane.
import { attend, attentionWeights } from "./vit.js";
import { adjust, ARROWS, button, clamp, decimals, draggable, element, hint, keys, meter } from "./view.js";
import { percent, readout, shape, spotUnder, strongest, ticks, unbind } from "./view.js";

const SIZE = 400; // of a plane in its own units
const QUERY = "#cc79a7", KEY = "#e69f00", VALUE = "#56b4e9";

export function arrows(stage, data, draw) {
  const values = unbind(data.values), count = values.length, seen = new Uint8Array(count).fill(1);
  const query = data.query.slice(), offered = data.keys.slice(); // which the reader moves
  const keyVectors = unbind(Object.assign(offered, { shape: data.keys.shape }));
  let temperature = 1, weights = null, output = null;

  hint(stage, "Drag the round tip of the query, or of a key, and watch the weights and the output."
    + " With keys, Tab chooses a tip and the arrows move it.");
  const controls = element("div", { class: "vit-controls" }, stage);
  const heat = element("label", { class: "vit-slider" }, controls);
  element("span", { text: "temperature" }, heat);
  const range = element("input", { type: "range", min: -1, max: 1, step: 0.01 }, heat); // of its logarithm
  const shown = element("output", {}, heat);
  range.addEventListener("input", () => { temperature = 10 ** range.value; draw(); });
  keys(range, (key) => (key in ARROWS || ["Home", "End", "PageUp", "PageDown"].includes(key)) && "native");
  button(controls, "put back", () => {
    query.set(data.query);
    offered.set(data.keys);
    temperature = 1;
    draw();
  });

  const main = element("div", { class: "vit-arrows" }, stage);
  const asked = plane(main, "the query and the keys", [...query, ...offered]);
  const middle = element("div", { class: "vit-arrows-table" }, main);
  const found = plane(main, "the values and the output", data.values);
  const tell = readout(stage);
  const keyArrows = values.map((_, one) => arrow(asked, KEY, `k${one}`));
  const valueArrows = values.map((_, one) => arrow(found, VALUE, `v${one}`));
  const queryArrow = arrow(asked, QUERY, "query");
  const chain = shape("polyline", { class: "vit-arrows-chain" }, found.frame);
  const outputArrow = arrow(found, "currentColor", "output");
  const tips = [...keyVectors.map((one, at) => tip(one, KEY, `key k${at}`)), tip(query, QUERY, "query")];
  const rows = table();

  // A square plane about the origin: lines at round numbers, axes, and the way from numbers to places and back.
  function plane(parent, caption, numbers) {
    const far = 1.25 * Math.max(0.4, ...numbers.map(Math.abs));
    const holder = element("figure", { class: "vit-figure vit-first vit-arrows-plane" }, parent);
    const frame = shape("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": caption }, holder);
    element("figcaption", { text: caption }, holder);
    const x = (number) => (1 + number / far) * SIZE / 2, y = (number) => (1 - number / far) * SIZE / 2;
    for (const line of ticks(-0.94 * far, 0.94 * far)) {
      const kind = { class: line ? "vit-arrows-line" : "vit-arrows-axis" };
      shape("line", { x1: x(line), x2: x(line), y2: SIZE, ...kind }, frame);
      shape("line", { x2: SIZE, y1: y(line), y2: y(line), ...kind }, frame);
      const words = { class: "vit-arrows-number", text: line ? String(Number(line.toFixed(2))).replace("-", "−") : "" };
      shape("text", { x: x(line), y: y(0) + 15, "text-anchor": "middle", ...words }, frame);
      shape("text", { x: x(0) - 5, y: y(line) + 4, "text-anchor": "end", ...words }, frame);
    }
    const numberAt = (event) => {
      const [across, down] = spotUnder(event, frame);
      return [(2 * across - 1) * far, (1 - 2 * down) * far];
    };
    return { frame, x, y, numberAt, far };
  }

  // An arrow from the origin. set(vector, thick) moves it.
  function arrow({ frame, x, y }, colour, name) {
    const turned = shape("g", { fill: colour, stroke: colour }, frame); // an arrow to the right, which is turned
    const line = shape("line", { "stroke-linecap": "round" }, turned);
    const head = shape("polygon", { stroke: "none" }, turned);
    const words = shape("text", { text: name, class: "vit-arrows-name", "text-anchor": "middle" }, frame);
    const half = name.length * 5; // of the width of the name, which is never cut off
    return ([right, above], thick) => {
      const dx = x(right) - x(0), dy = y(above) - y(0), length = Math.hypot(dx, dy), angle = Math.atan2(dy, dx);
      const sharp = Math.min(length, 9 + 2 * thick), base = length - sharp, side = 0.45 * sharp;
      adjust(turned, { transform: `translate(${x(0)} ${y(0)}) rotate(${(angle * 180) / Math.PI})` });
      adjust(line, { x2: base, "stroke-width": thick });
      adjust(head, { points: `${length},0 ${base},${side} ${base},${-side}` });
      const [across, down] = name === "output" ? [dx < 0 ? -1 : 1, 0.7] // a value is near
        : [Math.cos(angle), Math.sin(angle)];
      const low = y(above) + 18 * down + (Math.abs(down) < 0.5 ? -8 : 5); // above what lies on the axis
      adjust(words, { x: clamp(half, x(right) + across * (half + 14), SIZE - half), y: clamp(14, low, SIZE - 4) });
    };
  }

  // A round tip that is dragged, or moved by the arrow keys; `vector` is where it is.
  function tip(vector, colour, name) {
    const { frame, x, y, numberAt, far } = asked, step = far / 20;
    const made = shape("g", { class: "vit-arrows-tip", tabindex: 0, role: "application",
      "aria-roledescription": "tip of an arrow" }, frame);
    shape("circle", { r: 20, fill: "transparent" }, made); // what a finger can hit
    shape("circle", { r: 8, fill: colour, class: "vit-arrows-knob" }, made);
    const to = (...place) => {
      for (const axis of [0, 1]) vector[axis] = clamp(-far, place[axis], far);
      draw();
    };
    draggable(made, (event) => {
      event.preventDefault(); // no text is marked
      made.focus();
      const [right, up] = numberAt(event), grip = [vector[0] - right, vector[1] - up]; // so that the tip does not jump
      return (event) => to(...numberAt(event).map((one, axis) => one + grip[axis]));
    });
    // A finger on a tip drags it; elsewhere it scrolls the page. In SVG the style touch-action does not reach so far.
    made.addEventListener("touchmove", (event) => event.cancelable && event.preventDefault(), { passive: false });
    keys(made, (key) => {
      if (!(key in ARROWS)) return false;
      const [down, across] = ARROWS[key];
      to(vector[0] + across * step, vector[1] - down * step);
      return true;
    });
    return () => adjust(made, { transform: `translate(${x(vector[0])} ${y(vector[1])})`,
      "aria-label": `${name} at ${pair(vector)}. Arrow keys move it` });
  }

  // Of every key: its score, the score divided by the temperature, and its weight.
  function table() {
    for (const text of ["", "q · k / √2", "÷ temperature", "weight", ""]) element("strong", { text }, middle);
    return values.map((_, one) => {
      element("span", { text: `k${one}` }, middle);
      const [score, cooled] = [0, 1].map(() => element("span", { class: "vit-number" }, middle));
      return { score, cooled, show: meter(middle).show };
    });
  }

  function paint() {
    // A temperature divides the scores. Dividing the query comes to the same.
    weights = attentionWeights(query.map((one) => one / temperature), offered, seen, 2);
    output = attend(weights, data.values, count, 2);
    const scores = keyVectors.map((key) => (query[0] * key[0] + query[1] * key[1]) * Math.SQRT1_2);
    keyArrows.forEach((set, one) => set(keyVectors[one], 2 + 6 * weights[one]));
    valueArrows.forEach((set, one) => set(values[one], 2 + 6 * weights[one]));
    queryArrow(query, 4);
    outputArrow(output, 3);
    tips.forEach((move) => move());
    range.value = Math.log10(temperature);
    shown.textContent = degrees(temperature);
    range.setAttribute("aria-valuetext", shown.textContent);

    // The weighted values one behind the other end at the output.
    const corners = [[0, 0]];
    values.forEach((value, one) => corners.push(corners[one].map((sum, axis) => sum + weights[one] * value[axis])));
    adjust(chain, { points: corners.map(([right, up]) => `${found.x(right)},${found.y(up)}`).join(" ") });
    rows.forEach(({ score, cooled, show }, one) => {
      score.textContent = decimals(scores[one]);
      cooled.textContent = decimals(scores[one] / temperature);
      show(weights[one], decimals(weights[one]), KEY);
    });
    const best = strongest(scores), mixed = values.map((_, one) => `${decimals(weights[one])} v${one}`).join(" + ");
    const dot = [0, 1].map((axis) => `${decimals(query[axis])} * ${decimals(keyVectors[best][axis])}`).join(" + ");
    tell(`The query ${pair(query)} fits key k${best} best: (${dot}) / √2 = ${decimals(scores[best])}. `
      + `At a temperature of ${degrees(temperature)}, k${best} gets ${percent(weights[best])} of the weight. `
      + `The output is ${mixed} = ${pair(output)}: the dashed line adds these parts one by one.`);
  }
  const copies = () => ({ query: [...query], keys: [...offered], weights: [...weights], output: [...output] });
  return { paint, state: () => ({ temperature, ...copies() }) };
}

const pair = (vector) => `(${decimals(vector[0])}, ${decimals(vector[1])})`;
const degrees = (temperature) => String(Number(temperature.toPrecision(2)));
