// Point at a patch, or at the class token, and see where it looks: the mean of the heads large, each head beside it,
// and lines to the strongest patches. Either the attention was recorded, or the model is here and computes it. Then
// heads can be silenced, and the answer stands beside.
import { forward, softmax } from "./vit.js";
import { bars, boxOf, button, capital, choice, element, figure, gridLines, hint, hoverable, largest } from "./view.js";
import { meter, number, outline, painter, patchUnder, place, pointable, press, readout, scaleBar } from "./view.js";
import { strongest, switcher } from "./view.js";

const PINK = "#cc79a7", BLUE = "#0072b2", STRONGEST = 5;

export function attention(stage, data, draw) {
  const { image, rows, cols, first, blocks, heads, weights, config, classes } = data;
  const patches = rows * cols, tokens = patches + first, alike = 1 / tokens;
  const home = first ? -1 : Math.floor(rows / 2) * cols + Math.floor(cols / 2); // -1 is the class token
  let query = home, block = blocks.at(-1), pinned = null, key = null, own = false, silenced = [], trace = null;

  // What stands where: controls, then the picture, the mean map, the answer; the heads; the strongest; the sentence.
  const controls = element("div", { class: "vit-controls" }, stage);
  const byBlock = choice(controls, "block", blocks.map((one) => [one, one]), block, (one) => { block = one; draw(); });
  byBlock.group.hidden = blocks.length === 1;
  const star = first ? button(controls, "★ class token", () => look(-1)) : null;
  switcher(controls, "a scale for each map", (pressed) => { own = pressed; draw(); });
  hint(stage, "Point at a patch, or use the arrow keys. A click, a second tap or Enter pins it; Escape lets it go.");

  const main = element("div", { class: "vit-main" }, stage), left = element("div", {}, main);
  const above = element("div", { class: "vit-row" }, left), row = element("div", { class: "vit-row" }, left);
  const label = "The picture. Arrow keys choose the patch whose attention is shown, Home ";
  const view = figure(above, image, { label: label + (first ? "the class token" : "the middle"),
    caption: "the picture", kind: "vit-first" });
  const mean = map(above, "mean"), pinnedMean = map(above, "pinned, mean");
  const side = element("div", { class: "vit-side" }, main);
  const cell = { width: image.width / cols, height: image.height / rows };
  const listed = element("div", { class: "vit-strongest" }, side);
  element("strong", { text: heads.length > 1 ? "strongest, mean of the heads" : "strongest" }, listed);
  const strong = Array.from({ length: Math.min(STRONGEST, patches) }, () => {
    const line = element("div", {}, listed);
    const thumb = element("canvas", { ...cell, class: "vit-thumb", role: "img" }, line);
    return { thumb, ink: thumb.getContext("2d"), ...meter(line) };
  });
  const answer = (weights || data.logits) && bars(side, classes, "what the model says");
  const maps = heads.map((head) => map(row, `head ${head}`, head));
  const scale = scaleBar(left, data.inferno), tell = readout(stage);
  const paintMap = painter(image, { rows, cols }, data.inferno);

  pointable(view, { rows, cols }, { current: () => query, point: look, pick: pin, home, letGo: () => pin(null) });

  function map(parent, name, head = null) {
    const shown = figure(parent, image, { label: `where the query looks, ${name}`, caption: name,
      kind: head === null ? "" : "vit-small" });
    hoverable(shown.canvas, (event) => point(patchUnder(event, shown.canvas, { rows, cols })), () => point(null));
    shown.isMine = ([where, which]) => where === block && which === head; // of a pair in `silenced`
    if (head !== null && weights)
      shown.silence = switcher(shown.frame, "silence", (pressed) => {
        silenced = pressed ? [...silenced, [block, head]] : silenced.filter((pair) => !shown.isMine(pair));
        trace = null;
        draw();
      }, { "aria-label": `silence head ${head}` });
    return shown;
  }

  // The row of weights of a query in a head, the class token's own first if there is one.
  function weightsOf(head, from) {
    const start = first ? from + 1 : from;
    if (weights) {
      trace ??= forward(weights, config, image.numbers, { silenced });
      const all = trace.get(`blocks.${block}.attention.weights`), at = (head * tokens + start) * tokens;
      return all.subarray(at, at + tokens);
    }
    const at = (blocks.indexOf(block) * heads.length + heads.indexOf(head)) * tokens + start;
    const shades = data.shades.subarray(at * patches, (at + 1) * patches), values = new Float32Array(tokens);
    if (first) values[0] = data.toClass[at];
    shades.forEach((shade, patch) => { values[first + patch] = (shade / 255) * data.peaks[at]; });
    return values;
  }

  function meanOf(from) {
    const sum = new Float32Array(tokens);
    for (const head of heads) weightsOf(head, from).forEach((weight, at) => { sum[at] += weight / heads.length; });
    return sum;
  }

  function paint() {
    const each = heads.map((head) => weightsOf(head, query).subarray(first)), whole = meanOf(query);
    const mine = whole.subarray(first), other = pinned === null ? null : meanOf(pinned).subarray(first);
    const shown = [[mean, mine], ...each.map((values, at) => [maps[at], values])];
    if (other) shown.push([pinnedMean, other]);
    const most = Math.max(...shown.map(([, values]) => largest(values)));
    for (const [target, values] of shown) {
      paintMap(target, values, own ? largest(values) : most);
      const [patch, colour] = target === pinnedMean ? [pinned, BLUE] : [query, PINK];
      outline(target, { rows, cols }, patch, colour);
      outline(target, { rows, cols }, key, "#000");
    }
    if (weights) maps.forEach(({ silence, isMine }) => press(silence, silenced.some(isMine)));
    mean.frame.hidden = heads.length === 1;
    pinnedMean.frame.hidden = other === null;
    if (star) press(star, query < 0);
    scale(most, alike).hidden = own;

    const order = Array.from(mine.keys()).sort((one, other) => mine[other] - mine[one]).slice(0, STRONGEST);
    view.context.drawImage(image.canvas, 0, 0);
    gridLines(view, { rows, cols });
    lines(order, mine);
    for (const [patch, colour] of [[pinned, BLUE], [key, "#000"], [query, PINK]])
      outline(view, { rows, cols }, patch, colour);
    pinnedMean.words.textContent = pinned === null ? "" : `pinned ${name(pinned)}, mean`;
    mean.words.textContent = `${query < 0 ? "★ class token" : name(query)}, mean of the heads`;
    strong.forEach(({ thumb, ink, show }, at) => {
      const patch = order[at], { width, height } = cell;
      thumb.setAttribute("aria-label", place(patch, cols));
      ink.drawImage(image.canvas, ...boxOf(patch, cols, width, height), 0, 0, width, height);
      show(mine[patch] / (mine[order[0]] || 1), number(mine[patch]));
    });
    answer?.(softmax(weights ? trace.get("output") : data.logits));
    tell(key === null ? sentence(order, whole) : pointed(each, mine));
  }

  // From the query to the strongest patches; the more weight, the thicker.
  function lines(order, values) {
    if (query < 0) return;
    const { context, width } = view, most = values[order[0]] || 1;
    const middle = (patch) => [((patch % cols) + 0.5) * cell.width, (Math.floor(patch / cols) + 0.5) * cell.height];
    for (const [thick, strokeStyle] of [[2, "#fff"], [1, PINK]])
      for (const patch of order) {
        const lineWidth = (width / 120) * thick * (0.3 + values[patch] / most);
        Object.assign(context, { strokeStyle, lineWidth });
        context.beginPath();
        context.moveTo(...middle(query));
        context.lineTo(...middle(patch));
        context.stroke();
      }
  }

  function sentence(order, whole) {
    const said = order.map((patch) => `${place(patch, cols)} (${number(whole[first + patch])})`).join(", ");
    const where = data.of > 1 ? `block ${block}, ` : "", what = heads.length > 1 ? "mean of the heads: " : "";
    const itself = first ? ` The class token gets ${number(whole[0])}.` : "";
    return capital(`${where}${what}${place(query, cols)} looks most at ${said}.`)
      + `${itself} Everywhere alike would be ${number(alike)}.`;
  }

  function pointed(each, mine) {
    const times = (weight) => `${number(weight)}, ${(weight / alike).toFixed(1)} times as much as everywhere alike`;
    const best = strongest(each.map((values) => values[key])), start = `${place(key, cols)} gets ${times(mine[key])}`;
    if (heads.length === 1) return capital(start + ".");
    return capital(`${start} on the mean of the heads. Head ${heads[best]} gives it most: ${times(each[best][key])}.`);
  }

  function name(patch) { return patch < 0 ? "★ class token" : `patch ${patch}`; }
  function look(patch) { query = patch; draw(); }
  function point(patch) { if (patch !== key) { key = patch; draw(); } }
  function pin(patch) { pinned = patch === pinned ? null : patch; draw(); }
  return { paint, state: () => ({ query, block, pinned, key, silenced }) };
}
