// All numbers of a ViT as areas to scale. Point at an area, at a row of the list, or walk with the arrow keys: the part
// says its name, its shape and its share, and the same part of all blocks lights up.
import { choice, clamp, element, hint, hoverable, keys, press, readout } from "./view.js";

const PATCH = "#0072b2", STAR = "#d55e00", POSITION = "#009e73";
const THIRDS = "linear-gradient(#cc79a7 0 33.3%, #e69f00 33.3% 66.7%, #56b4e9 66.7%)"; // queries, keys, values
const GREYS = { projection: "#d8d8d8", expand: "#bcbcbc", contract: "#a2a2a2", norm: "#6e6e6e", head: "#888888" };

// The tensors of a ViT as its state dict names them, in the order of the model. Those of a block are listed once, and
// `blocks` says how many there are.
function partsOf({ image_size, patch_size, channels, dim, depth, hidden, classes, positions, pooling }) {
  const [height, width = height] = [image_size].flat(), tokens = (height / patch_size) * (width / patch_size) + 1;
  const linear = (name, label, shape, colour, notebook, purpose) => [
    [name + ".weight", label, shape, colour, notebook, purpose],
    [name + ".bias", label + " bias", shape.slice(0, 1), colour, notebook, `They are added to the result of ${label}.`],
  ];
  const norm = (name, label, where) => [
    [name + ".weight", label, [dim], GREYS.norm, "06", `They stretch the numbers of a token ${where}.`],
    [name + ".bias", label + " bias", [dim], GREYS.norm, "06", `They shift the numbers of a token ${where}.`],
  ];
  const places = ["position_embedding.positions", "positions", [1, tokens, dim], POSITION, "03",
    "They tell every token where it stands."];
  const tensors = [
    ...linear("patch_embedding.projection", "patch embedding", [dim, channels * patch_size ** 2], PATCH, "02",
      "It turns the numbers of a patch into a token."),
    ["class_token.token", "★ class token", [1, 1, dim], STAR, "02", "It stands in front of the patches. "
      + `The classification head reads ${pooling === "mean" ? "the mean of the patches" : "its output"}.`],
    ...(positions === "learned" ? [places] : []),
    ...norm("blocks.*.norm_1", "norm 1", "before attention"),
    ...linear("blocks.*.attention.qkv", "qkv", [3 * dim, dim], THIRDS, "04 and 05",
      "Its thirds make the queries, the keys and the values."),
    ...linear("blocks.*.attention.projection", "projection", [dim, dim], GREYS.projection, "04 and 05",
      "It mixes what the heads have gathered."),
    ...norm("blocks.*.norm_2", "norm 2", "before the MLP"),
    ...linear("blocks.*.mlp.expand", "expand", [hidden, dim], GREYS.expand, "06",
      "It widens a token for the MLP's hidden layer."),
    ...linear("blocks.*.mlp.contract", "contract", [dim, hidden], GREYS.contract, "06",
      "It brings the hidden layer back to the width of a token."),
    ...norm("norm", "final norm", "after the last block"),
    ...linear("head.logits", "classification head", [classes, dim], GREYS.head, "07",
      "It turns what it reads into one logit for each class."),
  ];
  return tensors.map(([name, label, shape, colour, notebook, purpose]) => {
    const count = shape.reduce((one, other) => one * other), blocks = name.startsWith("blocks") ? depth : 0;
    return { name, label, shape, count, all: count * (blocks || 1), colour, notebook, purpose, blocks };
  });
}

// Areas to scale: halves of about the same size, side by side or one above the other, until each area has one part.
function split(parts, [left, top, width, height], place) {
  if (parts.length === 1) return place(parts[0], [left, top, width, height]);
  const total = sumOf(parts, "count");
  let first = 1, share = parts[0].count / total;
  while (first < parts.length - 1 && share + parts[first].count / total <= 0.5) share += parts[first++].count / total;
  const across = width >= height, [wide, high] = across ? [share * width, height] : [width, share * height];
  const rest = across ? [left + wide, top, width - wide, height] : [left, top + high, width, height - high];
  split(parts.slice(0, first), [left, top, wide, high], place);
  split(parts.slice(first), rest, place);
}

const sumOf = (some, what) => some.reduce((sum, one) => sum + one[what], 0);
const largestFirst = (some) => [...some].sort((one, other) => other.count - one.count);

export function parameters(stage, { config, sizes, variants }, draw) {
  const same = (size) => ["dim", "depth", "heads", "hidden"].every((name, at) => sizes[size][at] === config[name]);
  const published = Object.keys(sizes), own = published.find(same) ?? "yours";
  const fits = (patch) => [config.image_size].flat().every((side) => side % patch === 0);
  const patches = [...new Set([8, 14, 16, 32, config.patch_size])].filter(fits).sort((one, other) => one - other);
  let size = own, patch = config.patch_size, parts = [], areas = [], total = 0, chosen = null, block = 0; // 0 of blocks

  const controls = element("div", { class: "vit-controls" }, stage);
  const named = (some) => some.map((one) => [one, String(one)]);
  const sizesToChoose = own === "yours" ? [own, ...published] : published;
  choice(controls, "size", named(sizesToChoose), size, (one) => { size = one; build(); });
  choice(controls, "patch in pixels", named(patches), patch, (one) => { patch = one; build(); });
  const sum = element("strong", { class: "vit-parameters-sum" }, controls);
  hint(stage, "Point at an area or at a row of the list. "
    + "With the arrow keys, up and down go to the next part, left and right to the next block.");
  const main = element("div", { class: "vit-parameters" }, stage);
  const map = element("div", { class: "vit-points vit-parameters-map", tabindex: 0, role: "application",
    "aria-roledescription": "map of all parameters" }, main);
  const tell = readout(main);
  const list = element("div", { class: "vit-parameters-list", role: "group", "aria-label": "the parts" }, main);

  // Everything that follows from the sizes: the parts, their list, and then their areas.
  function build() {
    const [dim, depth, heads, hidden] = sizes[size] ?? [config.dim, config.depth, config.heads, config.hidden];
    parts = partsOf({ ...config, dim, depth, heads, hidden, patch_size: patch });
    total = sumOf(parts, "all");
    sum.textContent = said(total) + " numbers";
    map.setAttribute("aria-label", `All ${sum.textContent} as areas. Arrow keys choose a part and a block.`);
    block = Math.min(block, depth - 1);
    list.replaceChildren();
    parts.forEach((part, at) => {
      const row = element("button", { type: "button", tabindex: -1 }, list);
      element("i", { style: `background: ${part.colour}` }, row);
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
    const wide = map.clientWidth || 600, high = Math.round(wide * (wide < 500 ? 1.2 : 0.72));
    const inside = largestFirst(parts.filter(({ blocks }) => blocks)), depth = inside[0].blocks;
    const outside = largestFirst(parts.filter(({ blocks }) => !blocks));
    const beside = (wide * sumOf(outside, "all")) / total, room = wide - beside;
    const skew = (cols) => Math.abs(Math.log((room / cols) / (high / (depth / cols))));
    const whole = Array.from({ length: depth }, (_, less) => less + 1).filter((cols) => depth % cols === 0);
    const cols = whole.sort((one, other) => skew(one) - skew(other))[0];
    const width = room / cols, height = (high * cols) / depth;
    areas = [];
    map.replaceChildren();
    map.style.height = high + "px";
    split(outside, [0, 0, beside, high], (part, box) => add(part, box, 0));
    for (let number = 0; number < depth; number++) {
      const cell = [beside + (number % cols) * width, Math.floor(number / cols) * height, width, height];
      split(inside, cell, (part, box) => add(part, box, number));
      element("div", { class: "vit-parameters-block", style: placed(cell) }, map);
    }
    draw();
  }

  function placed(box) {
    return ["left", "top", "width", "height"].map((side, at) => `${side}: ${box[at]}px;`).join(" ");
  }

  // An area says its name where it has room, on its side in a narrow one; the area of `expand` also says the block.
  function add(part, [left, top, width, height], block) {
    const turned = width < 40 && height > 2.5 * width, [along, across] = turned ? [height, width] : [width, height];
    const fits = (text, lines) => 7 * text.length + 10 < along && 17 * lines <= across;
    const which = part.label === "expand" ? ["block " + block, String(block)] : [];
    const words = [part.label, which.find((text) => fits(text, 2))].filter((text) => text && fits(text, 1));
    const ink = part.colour === PATCH || part.colour === GREYS.norm ? "#fff" : "#000";
    const style = `${placed([left, top, width, height])} --colour: ${part.colour}; --ink: ${ink}`;
    const kind = Math.min(width, height) < 6 ? "vit-parameters-tiny" : turned ? "vit-parameters-turned" : "";
    const made = element("div", { text: words.join("\n"), class: kind, style, "aria-hidden": "true" }, map);
    areas.push({ part, block, left, top, width, height, made });
  }

  function paint() {
    map.classList.toggle("vit-parameters-dim", chosen !== null);
    for (const { part, block: number, made } of areas) {
      const same = part === parts[chosen];
      made.classList.toggle("vit-parameters-same", same);
      made.classList.toggle("vit-parameters-here", same && (!part.blocks || number === block));
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
  hoverable(map, ({ clientX, clientY }) => { // a finger is followed from area to area
    const under = document.elementFromPoint(clientX, clientY), found = areas.find(({ made }) => made === under);
    if (found) choose(parts.indexOf(found.part), found.block);
  });
  keys(map, (key) => {
    const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[key], depth = parts[chosen ?? 0].blocks;
    if (key === "Escape") choose(null, block);
    else if (!by) return false;
    else if (chosen === null) choose(0, block);
    else if (key === "ArrowUp" || key === "ArrowDown") choose(clamp(0, chosen + by, parts.length - 1), block);
    else if (depth) choose(chosen, clamp(0, block + by, depth - 1));
    return true;
  });
  build();
  new ResizeObserver(arrange).observe(map);
  return { paint, state: () => ({ chosen, block, total, parts, areas }) };
}
