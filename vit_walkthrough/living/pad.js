// A pad to write a digit on with the mouse or a finger, and the picture that a model gets of it.
import { button, choice, clamp, draggable, element, figure, frames, largest, picture, spotUnder } from "./view.js";

const EXAMPLES = { // strokes from corner to corner of a pad of 1 x 1
  1: [[[0.36, 0.26], [0.52, 0.12], [0.52, 0.88]]],
  4: [[[0.55, 0.12], [0.22, 0.62], [0.8, 0.62]], [[0.62, 0.4], [0.62, 0.88]]],
  7: [[[0.25, 0.14], [0.75, 0.14], [0.45, 0.88]], [[0.35, 0.5], [0.7, 0.5]]],
};
const PEN = 6 / 48, ERASER = 10 / 48, THICK = 4.5 / 48; // of a pad; THICK is that of the strokes that the model gets
const HUE = [1, 0.65, 0.3], GROUND = "#181818"; // HUE: as in the training digits
// changed(picture) is told of every stroke: null while nothing is drawn. `shape` is that of the model's pictures.
export function writingPad(parent, shape, changed) {
  const { channels, height, width } = shape, frame = element("div", {}, parent);
  const label = "A pad to draw on with the mouse or a finger. With the keyboard, choose an example.";
  const { canvas, context } = figure(frame, shape, { label });
  const tools = element("div", { class: "vit-controls" }, frame);
  let strokes = [], erases = false;
  const draw = frames(paint);
  choice(tools, "pen", [[false, "draw"], [true, "erase"]], false, (one) => { erases = one; });
  button(tools, "clear", () => { examples.choose(null); strokes = []; paint(); });
  const names = Object.keys(EXAMPLES).map((name) => [name, name]);
  const examples = choice(tools, "example", names, null, (name) => {
    strokes = EXAMPLES[name].map((points) => ({ points, erases: false }));
    paint();
  });

  draggable(canvas, (event) => {
    const points = [spotUnder(event, canvas)];
    examples.choose(null);
    strokes.push({ points, erases });
    draw();
    return (event) => { points.push(spotUnder(event, canvas)); draw(); };
  });

  function paint() {
    context.fillStyle = GROUND;
    context.fillRect(0, 0, width, height);
    for (const { points, erases } of strokes) line(context, points, erases ? ERASER : PEN, erases ? GROUND : "#ffa64d");
    const scan = strokes.some(({ erases }) => !erases) ? asScan() : null;
    if (!scan) {
      Object.assign(context, { fillStyle: "#fff", font: `${width / 8}px system-ui, sans-serif`, textAlign: "center" });
      context.fillText("draw here", width / 2, height / 2);
    }
    changed(scan);
  }

  function line(target, points, lineWidth, strokeStyle) {
    Object.assign(target, { lineWidth: lineWidth * width, strokeStyle, lineCap: "round", lineJoin: "round" });
    target.beginPath();
    for (const [x, y] of [points[0], ...points]) target.lineTo(x * width, y * height); // so that a tap makes a dot
    target.stroke();
  }

  // The digit as those of the training are: half as high as the picture, soft, bright, on dark noise. The model often
  // takes larger ones, which it has never seen, for other digits. Null where all was erased.
  function asScan() {
    const drawn = strokes.filter(({ erases }) => !erases).flatMap(({ points }) => points);
    const spans = [0, 1].map((axis) => {
      const places = drawn.map((point) => point[axis]), low = Math.min(...places), high = Math.max(...places);
      return { size: high - low, middle: (low + high) / 2, to: clamp(1 / 4, (low + high) / 2, 3 / 4) };
    });
    const fit = Math.min(2, (1 / 2 - THICK) / Math.max(0.02, ...spans.map(({ size }) => size)));
    const target = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
    for (const { points, erases } of strokes) {
      const moved = points.map((point) => spans.map(({ to, middle }, axis) => to + fit * (point[axis] - middle)));
      target.globalCompositeOperation = erases ? "destination-out" : "source-over";
      line(target, moved, erases ? ERASER * fit : THICK, "#fff");
    }
    const pixels = target.getImageData(0, 0, width, height).data, size = width * height;
    const ink = softer(softer(Float32Array.from({ length: size }, (_, place) => pixels[4 * place + 3] / 255)));
    if (largest(ink) < 0.3) return null;
    const noise = (place) => 0.02 + 0.16 * Math.abs((Math.sin(12.9898 * place) * 43758.5453) % 1); // always the same
    const numbers = Float32Array.from({ length: channels * size }, (_, at) => {
      const ground = noise(at % size);
      return ground + (HUE[Math.floor(at / size)] - ground) * ink[at % size];
    });
    return picture(numbers, channels, height, width);
  }

  // Each pixel becomes the mean of the 3 x 3 pixels about it.
  function softer(ink) {
    return ink.map((_, place) => {
      const x = place % width, y = Math.floor(place / width);
      let sum = 0;
      for (let row = y - 1; row <= y + 1; row++)
        for (let col = x - 1; col <= x + 1; col++)
          sum += ink[clamp(0, row, height - 1) * width + clamp(0, col, width - 1)];
      return sum / 9;
    });
  }
  return { paint };
}
