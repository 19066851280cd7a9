// The Vision Transformer of model/, said again in JavaScript. A tensor is a Float32Array in the order of torch; its
// shape stands beside its name. Runs in a page and in Node, and is compared with torch number by number in the tests.

// weights: the names of the state dict -> Float32Array. config: as ViTConfig. image: (channels height width).
// Returns a Map from the names of `record` to Float32Array, without the batch axis; "output" is the logits.
// options: those of look/intervene.py, which says what each one does.
export function forward(weights, config, image, options = {}) {
  check(weights, config, image);
  const { order, positions = true, hidden = [], covered = [], temperature = 1 } = options;
  const { silenced = [], skipped = [], alone = [], unnormed = [] } = options;
  const { dim, depth, heads } = config, headDim = dim / heads;
  const tokens = grid(config).patches + 1;
  const trace = new Map();
  const keep = (name, tensor) => { trace.set(name, tensor); return tensor; };
  const linear = linearOf(weights, keep);
  const norm = (name, input) => {
    keep(name + ".input", input);
    return keep(name, unnormed.includes(name) ? input : layerNorm(input, name, weights));
  };

  // Equation 1: patches become tokens, the class token comes before them, and every place is added.
  keep("input", covered.length ? cover(image, covered, config) : image);
  let embedded = linear("patch_embedding.projection", patchify(trace.get("input"), config)); // (patches dim)
  const rowOf = (patch) => embedded.subarray(patch * dim, (patch + 1) * dim);
  if (order) embedded = Float32Array.from(order.flatMap((patch) => [...rowOf(patch)]));
  keep("patch_embedding", embedded);
  const sequence = new Float32Array(tokens * dim);
  sequence.set(weights["class_token.token"]);
  sequence.set(embedded, dim);
  keep("class_token", sequence);
  const places = positions && weights["position_embedding.positions"];
  let stream = keep("position_embedding", places ? add(sequence, places) : sequence); // (tokens dim)

  // Equations 2 and 3: each block adds what attention finds, and then what the MLP makes of it.
  for (let block = 0; block < depth; block++) {
    const path = `blocks.${block}`, start = stream;
    const found = attention(`${path}.attention`, norm(`${path}.norm_1`, stream), block);
    stream = joined(`${path}.attention`, stream, found);
    const expanded = linear(`${path}.mlp.expand`, norm(`${path}.norm_2`, stream)); // (tokens hidden)
    const thought = linear(`${path}.mlp.contract`, keep(`${path}.mlp.gelu`, expanded.map(gelu)));
    stream = joined(`${path}.mlp`, stream, thought);
    stream = keep(path, skipped.includes(path) ? start : stream);
  }

  // Equation 4: the class token's output is normalised, and read by the classification head.
  keep("blocks", stream);
  classify(norm("norm", stream), weights, config, keep);
  return trace.set("output", trace.get("head"));

  // Equations 5 to 8.
  function attention(path, input, block) {
    const qkv = linear(`${path}.qkv`, input); // (tokens 3*dim)
    const [queries, keys, values] = [0, 1, 2].map((part) => splitHeads(qkv, part, tokens, heads, headDim));
    if (temperature !== 1) queries.forEach((number, place) => { queries[place] = number / temperature; });
    keep(`${path}.queries`, queries); // (heads tokens headDim), and so are keys, values and head_outputs
    keep(`${path}.keys`, keys);
    keep(`${path}.values`, values);
    const seen = Uint8Array.from({ length: tokens }, (_, key) => !hidden.includes(key - 1)); // 0 is the class token
    const found = keep(`${path}.weights`, attentionWeights(queries, keys, seen, headDim)); // (heads queries keys)
    const outputs = keep(`${path}.head_outputs`, attend(found, values, tokens, headDim));
    for (const [where, head] of silenced)
      if (where === block) outputs.fill(0, head * tokens * headDim, (head + 1) * tokens * headDim);
    return linear(`${path}.projection`, joinHeads(outputs, tokens, heads, headDim));
  }

  // What a half of a block does with its result: it adds it to the stream, unless an option says otherwise.
  function joined(path, stream, result) {
    if (skipped.includes(path)) result = new Float32Array(result.length);
    keep(path, result);
    return alone.includes(path) ? result : add(stream, result);
  }
}

// A linear layer by its name, whose result is kept under that name.
const linearOf = (weights, keep) => (name, input) =>
  keep(name, multiply(input, inDoubles(weights[name + ".weight"]), weights[name + ".bias"]));

// The logits of normalised tokens (tokens dim): the head reads the class token, or the mean of the patches.
export function classify(normed, weights, config, keep = (name, tensor) => tensor) {
  const linear = linearOf(weights, keep);
  const features = pool(normed, config); // (dim)
  const hidden = weights["head.hidden.0.weight"] ? linear("head.hidden.0", features).map(Math.tanh) : features;
  return keep("head", linear("head.logits", keep("head.hidden", hidden)));
}

export function pool(tokens, { dim, pooling }) {
  if (pooling !== "mean") return tokens.slice(0, dim);
  const mean = new Float32Array(dim), patches = tokens.length / dim - 1;
  for (let place = dim; place < tokens.length; place++) mean[place % dim] += tokens[place] / patches;
  return mean;
}

// Where a token looks in a block, on the mean of the heads: (tokens).
export function looks(trace, block, token, { heads }) {
  const all = trace.get(`blocks.${block}.attention.weights`), tokens = Math.sqrt(all.length / heads);
  const mean = new Float32Array(tokens);
  for (let head = 0; head < heads; head++)
    for (let key = 0; key < tokens; key++) mean[key] += all[(head * tokens + token) * tokens + key] / heads;
  return mean;
}

// rows, cols and patches of a config.
export function grid(config) {
  const [height, width = height] = [config.image_size].flat();
  const rows = height / config.patch_size, cols = width / config.patch_size;
  return { height, width, rows, cols, patches: rows * cols };
}

// (channels height width) -> (patches channels*side*side): patches in reading order, each channel by channel.
export function patchify(image, config) {
  const { channels, patch_size: side } = config, { height, width, cols, patches } = grid(config);
  const flat = new Float32Array(image.length);
  let place = 0;
  for (let patch = 0; patch < patches; patch++) {
    const top = Math.floor(patch / cols) * side, left = (patch % cols) * side;
    for (let channel = 0; channel < channels; channel++)
      for (let y = top; y < top + side; y++)
        for (let x = left; x < left + side; x++) flat[place++] = image[(channel * height + y) * width + x];
  }
  return flat;
}

// The image with some patches painted in the median of each channel.
function cover(image, covered, config) {
  const { channels, patch_size: side } = config, { height, width, cols } = grid(config), size = height * width;
  const painted = image.slice();
  for (let channel = 0; channel < channels; channel++) {
    const median = image.slice(channel * size, (channel + 1) * size).sort()[Math.floor((size - 1) / 2)];
    for (const patch of covered)
      for (let y = 0; y < side; y++) {
        const from = (channel * height + Math.floor(patch / cols) * side + y) * width + (patch % cols) * side;
        painted.fill(median, from, from + side);
      }
  }
  return painted;
}

export function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}

// (rows ins) times the transpose of (outs ins), plus bias (outs): torch's Linear. Three rows and three outputs at once
// share what is read, which takes a third of the time. Where fewer are left, the last one is computed again. factors:
// the weight as a Float64Array, which is what JavaScript computes with.
function multiply(input, factors, bias) {
  const outs = bias.length, ins = factors.length / outs, rows = input.length / ins;
  const numbers = new Float64Array(input), result = new Float32Array(rows * outs);
  for (let r0 = 0; r0 < rows; r0 += 3) {
    const r1 = Math.min(r0 + 1, rows - 1), r2 = Math.min(r0 + 2, rows - 1);
    const x0 = r0 * ins, x1 = r1 * ins, x2 = r2 * ins;
    for (let o0 = 0; o0 < outs; o0 += 3) {
      const o1 = Math.min(o0 + 1, outs - 1), o2 = Math.min(o0 + 2, outs - 1);
      const y0 = o0 * ins, y1 = o1 * ins, y2 = o2 * ins;
      let a0 = bias[o0], a1 = bias[o1], a2 = bias[o2], b0 = a0, b1 = a1, b2 = a2, c0 = a0, c1 = a1, c2 = a2;
      for (let place = 0; place < ins; place++) {
        const a = numbers[x0 + place], b = numbers[x1 + place], c = numbers[x2 + place];
        const f0 = factors[y0 + place], f1 = factors[y1 + place], f2 = factors[y2 + place];
        a0 += a * f0; a1 += a * f1; a2 += a * f2;
        b0 += b * f0; b1 += b * f1; b2 += b * f2;
        c0 += c * f0; c1 += c * f1; c2 += c * f2;
      }
      result[r0 * outs + o0] = a0; result[r0 * outs + o1] = a1; result[r0 * outs + o2] = a2;
      result[r1 * outs + o0] = b0; result[r1 * outs + o1] = b1; result[r1 * outs + o2] = b2;
      result[r2 * outs + o0] = c0; result[r2 * outs + o1] = c1; result[r2 * outs + o2] = c2;
    }
  }
  return result;
}

// What is made once for a key of a Map.
export const cached = (map, key, make) => map.get(key) ?? map.set(key, make()).get(key);

// A weight is converted once for all images.
const converted = new WeakMap();
const inDoubles = (weight) => cached(converted, weight, () => new Float64Array(weight));

// One third of (tokens 3*dim), the queries, keys or values, as (heads tokens headDim).
function splitHeads(qkv, part, tokens, heads, headDim) {
  const dim = heads * headDim, split = new Float32Array(tokens * dim);
  for (let head = 0, to = 0; head < heads; head++)
    for (let token = 0; token < tokens; token++)
      for (let from = (3 * token + part) * dim + head * headDim, end = from + headDim; from < end;)
        split[to++] = qkv[from++];
  return split;
}

// The other way round: the heads beside one another, as (tokens dim).
function joinHeads(outputs, tokens, heads, headDim) {
  const joined = new Float32Array(outputs.length);
  for (let head = 0, from = 0; head < heads; head++)
    for (let token = 0; token < tokens; token++)
      for (let to = (token * heads + head) * headDim, end = to + headDim; to < end;) joined[to++] = outputs[from++];
  return joined;
}

// Equation 6: the products of every query with every key that is seen, over sqrt(headDim), and their softmax.
export function attentionWeights(queries, keys, seen, headDim) {
  const tokens = seen.length, size = tokens * headDim, scale = headDim ** -0.5, noBias = new Float32Array(tokens);
  const weights = new Float32Array((queries.length / headDim) * tokens);
  for (let from = 0, to = 0; from < keys.length; from += size, to += tokens * tokens) { // a head
    const factors = new Float64Array(keys.subarray(from, from + size));
    weights.set(multiply(queries.subarray(from, from + size), factors, noBias), to);
  }
  for (let row = 0; row < weights.length; row += tokens) { // of a query
    let most = -Infinity, sum = 0;
    for (let key = 0; key < tokens; key++) {
      const score = weights[row + key] = seen[key] ? weights[row + key] * scale : -Infinity;
      if (score > most) most = score;
    }
    for (let at = row; at < row + tokens; at++) sum += weights[at] = Math.exp(weights[at] - most);
    for (let at = row; at < row + tokens; at++) weights[at] /= sum;
  }
  return weights;
}

// Equation 7: for every query of a head the sum of the values, each times its weight.
export function attend(weights, values, tokens, headDim) {
  const size = tokens * headDim, noBias = new Float32Array(headDim), across = new Float64Array(size);
  const outputs = new Float32Array((weights.length / tokens) * headDim);
  for (let from = 0, to = 0; from < values.length; from += size, to += tokens * tokens) { // a head
    for (let at = 0; at < size; at++) across[(at % headDim) * tokens + Math.floor(at / headDim)] = values[from + at];
    outputs.set(multiply(weights.subarray(to, to + tokens * tokens), across, noBias), from);
  }
  return outputs;
}

export function layerNorm(input, name, weights) {
  const weight = weights[name + ".weight"], bias = weights[name + ".bias"];
  const dim = weight.length, result = new Float32Array(input.length);
  for (let from = 0; from < input.length; from += dim) {
    const to = from + dim;
    let sum = 0, squares = 0;
    for (let at = from; at < to; at++) sum += input[at];
    for (let at = from; at < to; at++) squares += (input[at] - sum / dim) ** 2;
    const mean = sum / dim, scale = 1 / Math.sqrt(squares / dim + 1e-6);
    for (let at = from, place = 0; at < to; at++, place++)
      result[at] = (input[at] - mean) * scale * weight[place] + bias[place];
  }
  return result;
}

// With erf by Abramowitz and Stegun 7.1.26, which is off by at most 1.5e-7.
function gelu(number) {
  const size = Math.abs(number) / Math.SQRT2, t = 1 / (1 + 0.3275911 * size);
  const tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const erf = 1 - tail * Math.exp(-size * size);
  return 0.5 * number * (1 + Math.sign(number) * erf);
}

function add(one, other) {
  const sum = one.slice();
  for (let place = 0; place < sum.length; place++) sum[place] += other[place];
  return sum;
}

// Weights of another config, a picture of another size or with NaN: an Error that names what does not fit.
function check(weights, config, image) {
  const { height, width, patches } = grid(config), { channels, dim, depth, classes } = config;
  if (image.length !== channels * height * width)
    throw new Error(`an image of ${image.length} numbers, but the config says ${channels} x ${height} x ${width}`);
  if (!image.every(Number.isFinite)) throw new Error("the image has numbers that are NaN or infinite");
  const expected = {
    "patch_embedding.projection.weight": dim * channels * config.patch_size ** 2,
    "class_token.token": dim,
    [`blocks.${depth - 1}.mlp.contract.weight`]: dim * config.hidden,
    "head.logits.bias": classes,
  };
  if (config.positions !== "none") expected["position_embedding.positions"] = (patches + 1) * dim;
  for (const [name, length] of Object.entries(expected))
    if (weights[name]?.length !== length)
      throw new Error(`${name} has ${weights[name]?.length ?? "no"} numbers, but the config says ${length}`);
}
