// All numbers of a ViT as areas to scale. Point at an area, at a row of the list, or walk with the arrow keys: the part
// says its name, its shape and its share, and the same part of all blocks lights up.
import { choice, clamp, element, hint, hoverable, keys, press, readout, spotUnder } from "./view.js";

const PATCH = "#0072b2", STAR = "#d55e00", POSITION = "#009e73", THIRDS = ["#cc79a7", "#e69f00", "#56b4e9"];
const GREYS = { projection: "#d8d8d8", expand: "#bcbcbc", contract: "#a2a2a2", norm: "#6e6e6e", head: "#888888" };

// The tensors of a ViT as its state dict names them, in the order of the model. Those of a block are listed once, and
// `blocks` says how many there are.
function partsOf({ image_size, patch_size, channels, dim, depth, hidden, classes, positions, pooling }) {
  const [height, width = height] = [image_size].flat(), tokens = (height / patch_size) * (width / patch_size) + 1;
  const parts = [];
  const add = (name, label, shape, colours, notebook, purpose) => {
    const count = shape.reduce((one, other) => one * other), blocks = name.startsWith("blocks") ? depth : 0;
    parts.push({ name, label, shape, count, all: count * (blocks || 1), colours, notebook, purpose, blocks });
  };
  // A linear layer has a weight and a bias; a LayerNorm has two vectors of the same names.
  const pair = (name, label, shape, colours, notebook, purpose, ofBias) => {
    add(name + ".weight", label, shape, colours, notebook, purpose);
    add(name + ".bias", label + " bias", shape.slice(0, 1), colours, notebook, ofBias);
  };
  const linear = (name, label, into, from, colours, notebook, purpose) =>
    pair(name, label, [into, from], colours, notebook, purpose, `They are added to the result of ${label}.`);
  const norm = (name, label, where) => pair(name, label, [dim], [GREYS.norm], "06",
    `They stretch the numbers of a token ${where}.`, `They shift the numbers of a token ${where}.`);
  const reads = pooling === "mean" ? "the mean of the patches" : "its output";
  linear("patch_embedding.projection", "patch embedding", dim, channels * patch_size ** 2, [PATCH], "02",
    "It turns the numbers of a patch into a token.");
  add("class_token.token", "★ class token", [1, 1, dim], [STAR], "02",
    `It stands in front of the patches. The classification head reads ${reads}.`);
  if (positions === "learned")
    add("position_embedding.positions", "positions", [1, tokens, dim], [POSITION], "03",
      "They tell every token where it stands.");
  norm("blocks.*.norm_1", "norm 1", "before attention");
  linear("blocks.*.attention.qkv", "qkv", 3 * dim, dim, THIRDS, "04 and 05",
    "Its thirds make the queries, the keys and the values.");
  linear("blocks.*.attention.projection", "projection", dim, dim, [GREYS.projection], "04 and 05",
    "It mixes what the heads have gathered.");
  norm("blocks.*.norm_2", "norm 2", "before the MLP");
  linear("blocks.*.mlp.expand", "expand", hidden, dim, [GREYS.expand], "06",
    "It widens a token for the MLP's hidden layer.");
  linear("blocks.*.mlp.contract", "contract", dim, hidden, [GREYS.contract], "06",
    "It brings the hidden layer back to the width of a token.");
  norm("norm", "final norm", "after the last block");
  linear("head.logits", "classification head", classes, dim, [GREYS.head], "07",
    "It turns what it reads into one logit for each class.");
  return parts;
}

// Areas to scale: halves of about the same size, side by side or one above the other, until each area has one part.
function split(parts, left, top, width, height, place) {
  if (parts.length === 1) return place(parts[0], { left, top, width, height });
  const total = sumOf(parts, "count");
  let first = 1, share = parts[0].count / total;
  while (first < parts.length - 1 && share + parts[first].count / total <= 0.5) share += parts[first++].count / total;
  const across = width >= height, [wide, high] = across ? [share * width, height] : [width, share * height];
  split(parts.slice(0, first), left, top, wide, high, place);
  if (across) split(parts.slice(first), left + wide, top, width - wide, height, place);
  else split(parts.slice(first), left, top + high, width, height - high, place);
}

const sumOf = (some, what) => some.reduce((sum, one) => sum + one[what], 0);
const largestFirst = (some) => [...some].sort((one, other) => other.count - one.count);

export function parameters(stage, { config, sizes, variants }, draw) {
  const same = (size) => ["dim", "depth", "heads", "hidden"].every((name, at) => sizes[size][at] === config[name]);
  const published = Object.keys(sizes), own = published.find(same) ?? "yours";
  const fits = (patch) => [config.image_size].flat().every((side) => side % patch === 0);
  const patches = [...new Set([8, 14, 16, 32, config.patch_size])].filter(fits).sort((one, other) => one - other);
  let size = own, patch = config.patch_size, parts = [], areas = [], total = 0, chosen = null, block = 0; // 0 of blocks
  let sheet = null, wide = 0, high = 0; // the map that nothing is chosen on, and its size

  const controls = element("div", { class: "vit-controls" }, stage);
  const named = (some) => some.map((one) => [one, String(one)]);
  const sizesToChoose = own === "yours" ? [own, ...published] : published;
  choice(controls, "size", named(sizesToChoose), size, (one) => { size = one; build(); });
  choice(controls, "patch in pixels", named(patches), patch, (one) => { patch = one; build(); });
  const sum = element("strong", { class: "vit-parameters-sum" }, controls);
  hint(stage, "Point at an area or at a row of the list. "
    + "With the arrow keys, up and down go to the next part, left and right to the next block.");
  const main = element("div", { class: "vit-parameters" }, stage);
  const canvas = element("canvas", { class: "vit-points", tabindex: 0, role: "application",
    "aria-roledescription": "map of all parameters" }, main);
  const context = canvas.getContext("2d"), tell = readout(main);
  const list = element("div", { class: "vit-parameters-list", role: "group", "aria-label": "the parts" }, main);

  // Everything that follows from the sizes: the parts, their list, and then their areas.
  function build() {
    const [dim, depth, heads, hidden] = sizes[size] ?? [config.dim, config.depth, config.heads, config.hidden];
    parts = partsOf({ ...config, dim, depth, heads, hidden, patch_size: patch });
    total = sumOf(parts, "all");
    sum.textContent = said(total) + " numbers";
    canvas.setAttribute("aria-label", `All ${sum.textContent} as areas. Arrow keys choose a part and a block.`);
    block = Math.min(block, depth - 1);
    list.replaceChildren();
    parts.forEach((part, at) => {
      const row = element("button", { type: "button", tabindex: -1 }, list), width = 100 / part.colours.length;
      const stripes = part.colours.map((one, at) => `${one} ${width * at}% ${width * (at + 1)}%`);
      element("i", { style: `background:linear-gradient(90deg,${stripes})` }, row);
      for (const text of [part.label, part.blocks ? "× " + part.blocks : ""]) element("span", { text }, row);
      element("span", { class: "vit-number", text: said(part.all) }, row);
      for (const kind of ["pointerenter", "click"]) row.addEventListener(kind, () => choose(at, block));
      part.row = row;
    });
    arrange();
  }

  // What stands outside the blocks comes in a column on the left. A block is a cell of a grid, so that the same part of
  // every block has the same form: of the grids without empty cells, the one whose cells are closest to squares.
  function arrange() {
    wide = canvas.clientWidth || 600;
    high = Math.round(wide * (wide < 500 ? 1.2 : 0.72));
    const inside = parts.filter(({ blocks }) => blocks), outside = parts.filter(({ blocks }) => !blocks);
    const depth = inside[0].blocks, beside = (wide * sumOf(outside, "all")) / total, room = wide - beside;
    const skew = (cols) => Math.abs(Math.log((room / cols) / (high / (depth / cols))));
    const whole = Array.from({ length: depth }, (_, less) => less + 1).filter((cols) => depth % cols === 0);
    const cols = whole.sort((one, other) => skew(one) - skew(other))[0];
    const width = room / cols, height = (high * cols) / depth;
    const groups = ["mlp", "attention", "norm"].map((kind) => {
      const some = largestFirst(inside.filter(({ name }) => name.startsWith("blocks.*." + kind)));
      return { some, count: sumOf(some, "count") };
    });
    areas = [];
    const add = (block) => (part, area) => areas.push({ ...area, part, block });
    split(largestFirst(outside), 0, 0, beside, high, add(0));
    const cells = Array.from({ length: depth }, (_, number) =>
      [beside + (number % cols) * width, Math.floor(number / cols) * height, width, height]);
    cells.forEach((cell, number) => split(groups, ...cell, ({ some }, { left, top, width, height }) =>
      split(some, left, top, width, height, add(number))));
    paintSheet(cells);
    draw();
  }

  // The map on which nothing is chosen, in the pixels of the screen.
  function paintSheet(cells) {
    const scale = window.devicePixelRatio || 1, size = { width: wide * scale, height: high * scale };
    Object.assign(canvas, size);
    canvas.style.height = high + "px";
    context.scale(scale, scale);
    sheet = element("canvas", size);
    const ink = sheet.getContext("2d");
    ink.scale(scale, scale);
    for (const area of areas) fill(ink, area);
    Object.assign(ink, { strokeStyle: "#fff", lineWidth: 2.5 });
    for (const cell of cells) ink.strokeRect(...cell);
    for (const area of areas) label(ink, area);
  }

  function fill(ink, { left, top, width, height, part: { colours } }) {
    colours.forEach((colour, at) => {
      ink.fillStyle = colour;
      ink.fillRect(left, top + (at * height) / colours.length, width, height / colours.length);
    });
    Object.assign(ink, { strokeStyle: "#fff", lineWidth: 0.75 });
    if (Math.min(width, height) > 4) ink.strokeRect(left, top, width, height); // a line would hide a smaller one
  }

  // The name of a part where it has room, on its side in a narrow one.
  function label(ink, { left, top, width, height, part, block: number }) {
    const turned = width < 40 && height > 2.5 * width;
    const [along, across] = turned ? [height, width] : [width, height];
    ink.font = "12px system-ui, sans-serif";
    ink.fillStyle = part.colours[0] === PATCH || part.colours[0] === GREYS.norm ? "#fff" : "#000";
    const fits = (text, line) => ink.measureText(text).width + 8 < along && 15 * line - 2 <= across;
    ink.save();
    ink.translate(left, top + (turned ? height : 0));
    if (turned) ink.rotate(-Math.PI / 2);
    if (fits(part.label, 1)) ink.fillText(part.label, 6, turned ? across / 2 + 4 : 15);
    ink.font = "bold 12px system-ui, sans-serif";
    const which = ["block " + number, String(number)].find((text) => fits(text, 2));
    if (part.label === "expand" && which) ink.fillText(which, 6, 31);
    ink.restore();
  }

  function paint() {
    context.clearRect(0, 0, wide, high);
    context.globalAlpha = chosen === null ? 1 : 0.3;
    context.drawImage(sheet, 0, 0, wide, high);
    context.globalAlpha = 1;
    const scale = canvas.width / wide;
    for (const { left, top, width, height, part, block: number } of areas) {
      const here = !part.blocks || number === block;
      if (part !== parts[chosen]) continue;
      context.drawImage(sheet, left * scale, top * scale, width * scale, height * scale, left, top, width, height);
      for (const [thick, ink] of [[here ? 6 : 3, "#fff"], [here ? 3 : 1.5, "#000"]]) {
        Object.assign(context, { lineWidth: thick, strokeStyle: ink });
        context.beginPath();
        if (Math.min(width, height) > 8) context.rect(left + 1.5, top + 1.5, width - 3, height - 3);
        else { // a ring, that a part too small to be seen can be found
          const across = Math.max(9, width / 2 + 3), down = Math.max(9, height / 2 + 3);
          const x = clamp(across + 2, left + width / 2, wide - across - 2);
          context.ellipse(x, clamp(down + 2, top + height / 2, high - down - 2), across, down, 0, 0, 7);
        }
        context.stroke();
      }
    }
    parts.forEach(({ row }, at) => press(row, at === chosen));
    tell(chosen === null ? whole() : sentence(parts[chosen]));
  }

  function whole() {
    const name = `${size}/${patch}`, inside = parts.filter(({ blocks }) => blocks), depth = inside[0].blocks;
    const other = `A ViT-${size} with patches of ${patch} pixels, which was not published,`;
    const called = variants.includes(name) ? `ViT-${name}` : size === "yours" ? "Your ViT" : other;
    const pixels = [config.image_size].flat().join(" x "), which = depth > 1 ? `${depth} blocks` : "block";
    return `${called} learns ${said(total)} numbers for images of ${pixels} pixels. ` +
      `${share(sumOf(inside, "all"))} of them are in its ${which}. All areas are to scale.`;
  }

  function sentence({ name, shape, count, all, blocks, notebook, purpose }) {
    const builds = notebook.length > 2 ? `Notebooks ${notebook} build it.` : `Notebook ${notebook} builds it.`;
    const those = blocks > 1 ? ` The same part of all ${blocks} blocks has ${said(all)}, ${share(all)}.` : "";
    const itself = `${name.replace("*", block)} has the shape (${shape.join(", ")}): ${said(count)} numbers`;
    return `${itself}, ${share(count)} of all.${those} ${purpose} ${builds}`;
  }

  function said(count) { return count.toLocaleString("en"); }
  function share(count) {
    const percent = (100 * count) / total;
    return (percent >= 0.1 ? percent.toFixed(1) : percent.toPrecision(1)) + "%";
  }
  function choose(at, where) {
    if (at === chosen && where === block) return;
    [chosen, block] = [at, where];
    draw();
  }
  function under(event) {
    const [across, down] = spotUnder(event, canvas), x = across * wide, y = down * high;
    const found = areas.find(({ left, top, width, height }) =>
      x >= left && x < left + width && y >= top && y < top + height);
    if (found) choose(parts.indexOf(found.part), found.block);
  }
  hoverable(canvas, under);
  keys(canvas, (key) => {
    const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[key], depth = parts[chosen ?? 0].blocks;
    if (key === "Escape") choose(null, block);
    else if (!by) return false;
    else if (chosen === null) choose(0, block);
    else if (key === "ArrowUp" || key === "ArrowDown") choose(clamp(0, chosen + by, parts.length - 1), block);
    else if (depth) choose(chosen, clamp(0, block + by, depth - 1));
    return true;
  });
  new ResizeObserver(() => { if (canvas.clientWidth && canvas.clientWidth !== wide) arrange(); }).observe(canvas);
  build();
  return { paint, state: () => ({ chosen, block, total, parts, areas }) };
}
