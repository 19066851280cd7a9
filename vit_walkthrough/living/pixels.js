// Point at a pixel: it lights up in the picture, in its patch, in the row of numbers that its patch becomes, and in the
// sequence of all rows; the formula says where it is. Pointing into a row lights it up in the picture, the other way
// round. The second frame moves the numbers of a small image through the three steps of the code.
import { boxOf, choice, decimals, element, figure, framed, gridLines, hint, hoverable, inPalette } from "./view.js";
import { largest, namesOf, pointable, readout, sheet, swapped, tinted } from "./view.js";

const PATCH = "#0072b2", PIXEL = "#000";

export function pixels(stage, data, draw) {
  const { numbers, patchSize: side } = data, [channels, height, width] = numbers.shape, size = height * width;
  const rows = height / side, cols = width / side, inPlane = side * side, patchDim = channels * inPlane;
  const most = Math.max(1, largest(numbers)), written = channels === 1 && size <= 64;
  const named = (channel) => channels === 3 ? `channel ${channel} (${namesOf(3)[channel]})` : `channel ${channel}`;
  let { at } = data; // the place of the chosen number in numbers

  const controls = element("div", { class: "vit-controls" }, stage);
  choice(controls, "show", [[false, "one pixel"], [true, "as code"]], false, (code) => {
    [byPixel.hidden, asCode.hidden] = [code, !code];
  });
  const byPixel = element("div", {}, stage), asCode = element("div", { hidden: true }, stage);
  hint(byPixel, "Point at a pixel, or at a number of the other pictures: you see where it goes. Arrow keys work too.");
  const above = element("div", { class: "vit-row" }, byPixel);
  const below = written ? above : element("div", { class: "vit-row" }, byPixel);

  // Four pictures of the same numbers, with cells of so many pixels. numberAt(cell) is what a cell shows; cellOf(home)
  // is the cell that shows the chosen number.
  let line = Math.min(inPlane, 32); // so many numbers of a row stand in one line, or the cells would be too small
  while (inPlane % line) line--;
  const picture = board(above, { label: "the picture", across: width, down: height,
    caption: `the picture: ${height} x ${width} pixels, ${rows} rows of ${cols} patches`,
    cell: written ? 44 : Math.max(4, 312 / width), whole: true,
    numberAt: (cell) => Math.floor(at / size) * size + cell, cellOf: ({ y, x }) => y * width + x });
  const patch = board(above, { label: "the patch", across: channels * side, down: side,
    cell: written ? 60 : Math.max(6, 176 / side), cellOf: ({ place }) => swapped(place, [channels, side, side]),
    numberAt: (cell) => numberOf(homeOf(at).patch, swapped(cell, [side, channels, side])) });
  const row = board(below, { label: "the row of the patch", across: line, down: patchDim / line,
    caption: `its row: ${patchDim} numbers` + (patchDim > line ? `, written in lines of ${line}` : ""),
    cell: written ? 44 : 24, numberAt: (cell) => numberOf(homeOf(at).patch, cell), cellOf: ({ place }) => place });
  const sequence = board(below, { label: "the sequence of all rows", across: patchDim, down: rows * cols,
    caption: `the sequence: ${rows * cols} rows of ${patchDim} numbers, one row for each patch`,
    cell: written ? 44 : Math.max(1, 768 / patchDim),
    numberAt: (cell) => numberOf(Math.floor(cell / patchDim), cell % patchDim),
    cellOf: ({ patch, place }) => patch * patchDim + place });
  const boards = [picture, patch, row, sequence], words = element("div", { class: "vit-pixels-words" });
  (written ? sequence : patch).frame.after(words);
  const formula = element("p", { class: "vit-pixels-formula" }, words);
  hint(words, "Here // divides and leaves the remainder out, and % is the remainder.");
  const tell = readout(byPixel);

  // The steps of the code: of this image if it is small, else of the numbered image of 4 x 6.
  const code = written ? steps(asCode, [...numbers], { height, width, side }, data.viridis)
    : steps(asCode, [...Array(24).keys()], { height: 4, width: 6, side: 2 }, data.viridis);

  // Where a number of the image is: its channel and pixel, its patch, and its place in the patch's row.
  function homeOf(number) {
    const channel = Math.floor(number / size), y = Math.floor((number % size) / width), x = number % width;
    const patch = Math.floor(y / side) * cols + Math.floor(x / side);
    return { channel, y, x, patch, place: channel * inPlane + (y % side) * side + x % side };
  }

  function numberOf(patch, place) {
    const y = Math.floor(patch / cols) * side + Math.floor((place % inPlane) / side);
    const x = (patch % cols) * side + place % side;
    return (Math.floor(place / inPlane) * height + y) * width + x;
  }

  function board(parent, given) {
    const { across, down, cell, label, caption, numberAt, cellOf } = given;
    const shown = figure(parent, { width: across, height: down },
      { label: `${label}. Arrow keys move the chosen number`, caption, kind: "vit-pixels-board" });
    shown.frame.style.width = `min(100%, ${across * cell}px)`;
    pointable(shown, { rows: down, cols: across },
      { current: () => cellOf(homeOf(at)), point: (one) => { at = numberAt(one); draw(); } });
    return { ...given, ...shown };
  }

  // One number in colour: of the picture all channels at once, else its own channel's shade; counted ones in viridis.
  function colourOf(number, whole = false) {
    if (most > 1) return inPalette(data.viridis, numbers[number] / most);
    if (whole && channels === 3) return [0, 1, 2].map((channel) => 255 * numbers[channel * size + number % size]);
    return tinted(numbers[number], Math.floor(number / size), channels);
  }

  function paint() {
    const here = homeOf(at), { channel, y, x } = here;
    for (const one of boards) {
      const changes = one === patch || one === row;
      if (changes || !one.kept)
        one.kept = sheet(one.down, one.across, (cell) => colourOf(one.numberAt(cell), one.whole));
      one.context.drawImage(one.kept, 0, 0);
      if (written) write(one);
    }
    for (let other = 1; other < channels; other++) // a gap between the channels of the patch
      patch.context.clearRect(other * side - 0.06, 0, 0.12, side);
    gridLines(picture, { rows, cols }, (written ? 4 : 1) / picture.cell, 0.75);
    ring(picture, boxOf(here.patch, cols, side), PATCH);
    ring(sequence, [0, here.patch, patchDim, 1], PATCH);
    for (const one of boards) ring(one, boxOf(one.cellOf(here), one.across, 1), PIXEL);
    patch.words.textContent = `patch ${here.patch}, enlarged` + (channels === 3 ? ": its red, green and blue" : "");
    const [top, left] = [Math.floor(y / side), Math.floor(x / side)];
    formula.textContent = [
      "patch = y // side * cols + x // side",
      `      = ${y} // ${side} * ${cols} + ${x} // ${side}`,
      `      = ${top} * ${cols} + ${left} = ${here.patch}`,
      "place = channel * side * side",
      "        + (y % side) * side + x % side",
      `      = ${channel} * ${inPlane} + (${y} % ${side}) * ${side} + ${x} % ${side}`,
      `      = ${channel * inPlane} + ${(y % side) * side} + ${x % side} = ${here.place}`,
    ].join("\n");
    tell(`The pixel in row y = ${y}, column x = ${x} is ${worded(numbers[at], 2)} in ${named(channel)}. `
      + `It belongs to patch ${here.patch}, and there it is the number at place ${here.place} of the row.`);
  }

  function ring({ context, cell }, box, colour) { framed(context, box, 6 / cell, colour); }
  function write({ context, across, down, numberAt }) {
    Object.assign(context, { font: "0.4px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
    for (let cell = 0; cell < across * down; cell++) {
      context.fillStyle = inkOn(colourOf(numberAt(cell)));
      context.fillText(worded(numbers[numberAt(cell)]), cell % across + 0.5, Math.floor(cell / across) + 0.53);
    }
  }

  return { paint, state: () => ({ at, ...homeOf(at) }), tiles: code.tiles };
}

const inkOn = ([red, green, blue]) => 0.3 * red + 0.6 * green + 0.1 * blue < 110 ? "#fff" : "#000";
const worded = (value, digits = 1) => Number.isInteger(value) ? String(value) : decimals(value, digits);

// reshape, permute, reshape: half of the axes run down, the others across, so that only permute moves the numbers.
function steps(stage, numbers, { height, width, side }, palette) {
  const rows = height / side, cols = width / side, inPatch = side * side, gap = 0.5;
  const most = Math.max(1, ...numbers);
  const all = [
    { name: "the image", code: "image", axes: "height width", shape: [height, width],
      text: `The image has ${height} rows of ${width} numbers: the height runs down, the width runs across.` },
    { name: "1 reshape", code: `split = image.reshape(${rows}, ${side}, ${cols}, ${side})`, axes: "rows ph cols pw",
      shape: [rows, side, cols, side],
      text: "reshape splits both axes. No number moves. Gaps show the split: rows, ph run down; cols, pw across." },
    { name: "2 permute", code: "in_front = split.permute(0, 2, 1, 3)", axes: "rows cols ph pw",
      shape: [rows, cols, side, side],
      text: "permute swaps the two axes in the middle. The numbers of a patch meet: ph and pw now run across." },
    { name: "3 reshape", code: `patches = in_front.reshape(${rows * cols}, ${inPatch})`, axes: "patches patch_dim",
      shape: [rows * cols, inPatch],
      text: `reshape joins two and two axes. Each of the ${rows * cols} lines is a patch of ${inPatch} numbers.` },
  ];
  let step = 0, patch = Math.floor(rows / 2) * cols + Math.floor(cols / 2);
  hint(stage, "Press one step after another, and watch the numbers. Point at a number to choose its patch.");
  choice(element("div", { class: "vit-controls" }, stage), "step", all.map(({ name }, place) => [place, name]), 0, go);
  const code = element("p", { class: "vit-pixels-formula" }, stage);
  const floor = element("div", { class: "vit-pixels-floor", role: "img" }, stage);
  const tell = readout(stage);
  const wide = Math.max(width + gap * (cols - 1), inPatch + gap * (side - 1));
  const high = Math.max(height, rows * cols) + gap * (rows - 1);
  floor.style.aspectRatio = `${wide} / ${high}`;
  const tiles = numbers.map((number, place) => {
    const colour = inPalette(palette, number / most), y = Math.floor(place / width), x = place % width;
    const tile = element("span", { text: worded(number) }, floor);
    Object.assign(tile.style, { width: 100 / wide + "%", height: 100 / high + "%", background: `rgb(${[...colour]})`,
      color: inkOn(colour) });
    const own = Math.floor(y / side) * cols + Math.floor(x / side);
    hoverable(tile, () => { patch = own; go(step); });
    return { tile, y, x, own, place: (y % side) * side + x % side };
  });

  function go(next) {
    step = next;
    const { axes, shape, text } = all[step], split = step === 1 || step === 2 ? gap : 0;
    for (const { tile, y, x, own, place } of tiles) {
      const [down, across] = step < 2 ? [y, x] : [own, place];
      const up = step < 2 ? Math.floor(y / side) : Math.floor(own / cols), left = Math.floor(across / side);
      tile.style.top = (100 * (down + split * up)) / high + "%";
      tile.style.left = (100 * (across + split * left)) / wide + "%";
      tile.classList.toggle("vit-pixels-chosen", own === patch);
    }
    code.textContent = `${all[step].code}\n(${axes}) = (${shape.join(", ")})`;
    const inside = tiles.filter(({ own }) => own === patch).sort((one, other) => one.place - other.place);
    const held = inside.map(({ tile }) => tile.textContent).join(", ");
    floor.setAttribute("aria-label", `the numbers as (${axes}); patch ${patch} holds ${held}`);
    tell(`${text} Patch ${patch}, framed, holds ${held}.`);
  }
  go(0);
  return { tiles: () => tiles.map(({ tile }) => [tile.textContent, tile.style.left, tile.style.top]) };
}
