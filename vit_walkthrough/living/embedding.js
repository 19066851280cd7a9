// Point at a patch and at one number of its token: the patch, the filter that makes this number, their products place
// by place, and the sum. A token is nothing but such sums.
import { patchify } from "./vit.js";
import { boxOf, decimals, element, figure, framed, gridLines, hint, inGrid, inPalette } from "./view.js";
import { largest, namesOf, outline, pointable, readout, sheet, swapped, tinted } from "./view.js";

const BLUE = "#0072b2", BLACK = "#000";

export function embedding(stage, data, draw) {
  const { image, config, rows, cols, weights } = data, { patch_size: side, channels } = config;
  const filters = weights["patch_embedding.projection.weight"], bias = weights["patch_embedding.projection.bias"];
  const dim = bias.length, inPlane = side * side, patchDim = channels * inPlane;
  const pixels = patchify(image.numbers, config), colours = namesOf(channels);
  const number = (_, at) => sumOf(Math.floor(at / dim), at % dim, 0, patchDim) + bias[at % dim];
  const tokens = Float32Array.from({ length: rows * cols * dim }, number);
  // One scale for all tokens, and one for all filters and products: a product is no larger than its filter's number.
  const mostToken = largest(tokens.map(Math.abs)) || 1, mostFilter = largest(filters.map(Math.abs)) || 1;
  let { patch, chosen } = data, place = null;

  hint(stage, `Point at a patch, and then at one of the ${dim} numbers of its token: you see how it is computed.`
    + " Arrow keys work too.");
  const main = element("div", { class: "vit-embedding" }, stage);
  const [left, right] = [0, 1].map(() => element("div", {}, main));
  const view = figure(left, image, { label: "The picture. Arrow keys choose a patch", kind: "vit-first" });
  pointable(view, { rows, cols }, { current: () => patch, point: (one) => { patch = one; draw(); } });
  const across = Math.min(16, dim), down = Math.ceil(dim / across);
  const token = figure(left, { width: across, height: down },
    { label: `The token, ${dim} numbers. Arrow keys choose a number`, kind: "vit-strip" });
  pointable(token, { rows: down, cols: across },
    { current: () => chosen, point: (one) => { if (one < dim) { chosen = one; draw(); } } });
  signedBar(left, mostToken, "numbers of the token");

  // Three rows of planes, one above the other, with the channels side by side.
  const wide = channels * side;
  const planes = element("div", { class: "vit-embedding-planes" }, right);
  element("span", {}, planes);
  line(planes, colours);
  const [patchPlanes, filterPlanes, productPlanes] = ["patch", "× filter", "= products"].map(plane);
  element("span", { text: "their sums" }, planes);
  const sums = line(planes, colours.map(() => ""));
  const total = element("p", { class: "vit-embedding-sum" }, right);
  signedBar(right, mostFilter, "filter and products");
  const tell = readout(stage);

  function line(parent, words) {
    const made = element("div", { class: "vit-embedding-line" }, parent);
    return words.map((text) => element("span", { text }, made));
  }

  function plane(name) {
    const words = element("span", { text: name }, planes);
    const label = `${name}, place by place. Arrow keys choose a place`;
    const shown = figure(planes, { width: wide, height: side }, { label, kind: "vit-strip" });
    const choose = (one) => { place = one; draw(); };
    pointable(shown, { rows: side, cols: wide }, { current: () => place === null ? null : cellOf(place),
      point: (cell) => choose(placeOf(cell)), letGo: () => choose(null), leaves: true });
    return { ...shown, words };
  }

  // The cell in a row of planes that shows a place of the patch, and the other way round.
  function cellOf(one) { return swapped(one, [channels, side, side]); }
  function placeOf(cell) { return swapped(cell, [side, channels, side]); }
  function product(one) { return pixels[patch * patchDim + one] * filters[chosen * patchDim + one]; }
  function sumOf(patch, row, from, to) {
    let sum = 0;
    for (let one = from; one < to; one++) sum += pixels[patch * patchDim + one] * filters[row * patchDim + one];
    return sum;
  }
  function signedColour(value, most) { return inPalette(data.signed, 0.5 + value / most / 2); }

  function paint() {
    view.context.drawImage(image.canvas, 0, 0);
    gridLines(view, { rows, cols });
    outline(view, { rows, cols }, patch, BLUE);
    view.words.textContent = `patch ${patch}, in ${inGrid(patch, cols)}`;
    const mine = tokens.subarray(patch * dim, (patch + 1) * dim), value = mine[chosen];
    const cells = sheet(down, across, (one) => one < dim ? signedColour(mine[one], mostToken) : [255, 255, 255]);
    token.context.drawImage(cells, 0, 0);
    framed(token.context, boxOf(chosen, across, 1), across / 90, BLACK);
    token.words.textContent = `its token: ${dim} numbers in lines of ${across}. Number ${chosen}: ${decimals(value)}`;
    paintPlane(patchPlanes, (one) => tinted(pixels[patch * patchDim + one], Math.floor(one / inPlane), channels));
    paintPlane(filterPlanes, (one) => signedColour(filters[chosen * patchDim + one], mostFilter));
    paintPlane(productPlanes, (one) => signedColour(product(one), mostFilter));
    filterPlanes.words.textContent = `× filter ${chosen}`;
    patchPlanes.words.textContent = `patch ${patch}`;
    sums.forEach((shown, channel) => {
      const part = sumOf(patch, chosen, channel * inPlane, (channel + 1) * inPlane), sign = part < 0 ? "− " : "+ ";
      shown.textContent = channel === 0 ? decimals(part) : sign + decimals(Math.abs(part));
    });
    const sum = decimals(sumOf(patch, chosen, 0, patchDim)), added = decimals(bias[chosen]);
    const equation = `sum of ${patchDim} products ${sum} + bias ${added} = ${decimals(value)}`;
    total.textContent = equation;
    tell(place === null ? `Number ${chosen} of the token of patch ${patch}: ${equation} (rounded to two decimals).`
      : pointed());
  }

  function pointed() {
    const inside = place % inPlane, colour = colours[Math.floor(place / inPlane)];
    const factors = [pixels[patch * patchDim + place], filters[chosen * patchDim + place], product(place)];
    const [pixel, filtered, multiplied] = factors.map((one) => decimals(one, 3));
    return `One of the ${patchDim} products (${colour}, ${inGrid(inside, side)}): the patch has ${pixel}, `
      + `the filter ${filtered}, and their product is ${multiplied}.`;
  }

  function paintPlane({ context }, colourOf) {
    context.drawImage(sheet(side, wide, (cell) => colourOf(placeOf(cell))), 0, 0);
    for (let channel = 1; channel < channels; channel++) context.clearRect(channel * side - 0.2, 0, 0.4, side);
    if (place !== null) framed(context, boxOf(cellOf(place), wide, 1), wide / 90, BLACK);
  }

  // The bar of a scale from -most to most.
  function signedBar(parent, most, name) {
    const ends = [decimals(-most), "0", decimals(most)], label = `colours of ${name}, from ${ends[0]} to ${ends[2]}`;
    const frame = element("div", { class: "vit-embedding-scale", role: "img", "aria-label": label }, parent);
    frame.append(sheet(1, 256, (level) => inPalette(data.signed, level / 255)));
    for (const text of ends) element("span", { text }, frame);
    element("em", { text: `colours of the ${name}` }, frame);
  }
  return { paint, state: () => ({ patch, chosen, place }) };
}
