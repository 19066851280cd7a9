// A recorded training: drag along its curves, and see the answers, the maps and the filters as they were at that step.
import { adjust, boxOf, button, clamp, element, figure, framed, hint, hoverable, keys, largest } from "./view.js";
import { meter, painter, percent, pictureOf, readout, scaleBar, shape, sheet, spotUnder, still } from "./view.js";
import { strongest, switcher, ticks, unbind } from "./view.js";

const PLOT = { width: 460, height: 190, left: 46, right: 14, top: 26, bottom: 36 }, PAUSE = 350, ACROSS = 4;

export function run(stage, data, draw) {
  const { steps, labels, classes, rows, cols, boxes } = data, last = steps.length - 1;
  const pictures = unbind(data.pixels).map(pictureOf), { channels, width } = pictures[0];
  const [probabilities, maps, filters] = [data.probabilities, data.maps, data.filters].map(unbind); // of each moment
  let moment = last, timer = null, changes = false; // changes: of the filters

  const controls = element("div", { class: "vit-controls" }, stage);
  const play = button(controls, "", () => { if (timer) stop(); else start(); });
  play.hidden = still(); // with reduced motion, nothing moves by itself
  const when = element("strong", { "aria-hidden": "true" }, controls);
  hint(stage, "Point at a curve and move along it, or use the left and right arrow keys: "
    + "below you see the model as it was at that step.");

  // One control with two curves. It is a slider for those who hear it.
  const curves = element("div", { class: "vit-row vit-points vit-run-curves", role: "slider", tabindex: 0,
    "aria-label": "step of the training", "aria-valuemin": steps[0], "aria-valuemax": steps[last] }, stage);
  const guess = Math.log(classes.length), highest = 1.1 * Math.max(guess, largest(data.loss));
  const plots = [
    plot("right answers on validation images", data.accuracy, 1, percentOf, 1 / classes.length, "guessing"),
    plot("loss on validation images", data.loss, highest, toTenths, guess, `ln ${classes.length}: guessing`),
  ];
  const tell = readout(stage);

  // A column for each picture: what it shows, where the class token looks, what the model says.
  const below = element("div", { class: "vit-row vit-run-below" }, stage);
  const left = element("div", {}, below), beside = element("div", {}, below);
  element("strong", { text: "Where the class token looks in the last block, and what the model says" }, left);
  const row = element("div", { class: "vit-row" }, left);
  const most = largest(data.maps), grid = { rows, cols };
  const columns = pictures.map((one, at) => {
    const frame = element("div", { class: "vit-run-column" }, row);
    const shown = figure(frame, one, { label: `picture ${at}: ${classes[labels[at]]}`, kind: "vit-small" });
    shown.context.drawImage(one.canvas, 0, 0);
    frameSquare(shown, at);
    const map = figure(frame, one, { label: `where the class token looks on picture ${at}`, kind: "vit-small" });
    const says = element("span", {}, frame);
    return { map, says, show: meter(frame).show, paintMap: painter(one, grid, data.inferno) };
  });
  scaleBar(left, data.inferno)(most, 1 / (rows * cols + 1));

  // Filters side by side on one sheet, all on one scale, on which 0 is grey.
  const [, kept, patchDim] = data.filters.shape, side = Math.round(Math.sqrt(patchDim / channels));
  const across = Math.min(ACROSS, kept), down = Math.ceil(kept / across);
  element("strong", { text: `${kept} filters of the patch embedding; grey is 0` }, beside);
  switcher(beside, "show only what training has changed", (pressed) => { changes = pressed; draw(); });
  const moved = element("span", {}, beside);
  const size = { width: across * (side + 1) - 1, height: down * (side + 1) - 1 };
  const wall = element("canvas", { class: "vit-run-filters", role: "img", ...size }, beside);
  const ink = wall.getContext("2d");
  const changeAt = (at) => Array.from(filters[at], (level, place) => level - filters[0][place]);
  const mostChange = largest(steps.map((_, at) => largest(changeAt(at).map(Math.abs)))) || 1;

  function toTenths(value) { return value.toFixed(1); }
  function percentOf(share) { return Math.round(100 * share) + "%"; }
  function frameSquare({ context }, at) { if (boxes) framed(context, boxes[at], width / 24, "#cc79a7"); }

  // A curve with its axes; mark(moment) moves its line and its dot.
  function plot(title, values, highest, told, guess, guessed) {
    const { width, height, left, right, top, bottom } = PLOT;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, curves);
    const x = (step) => left + ((width - left - right) * (step - steps[0])) / (steps[last] - steps[0]);
    const y = (value) => height - bottom - ((height - top - bottom) * value) / highest;
    const rule = (at, kind) => shape("line", { x1: left, x2: width - right, y1: at, y2: at, class: kind }, svg);
    const write = (text, x, y, anchor) => shape("text", { text, x, y, "text-anchor": anchor }, svg);
    adjust(write(title, 2, 14, "start"), { class: "vit-run-name" });
    for (const value of ticks(0, highest)) {
      rule(y(value), "vit-run-grid");
      write(told(value), left - 6, y(value) + 4, "end");
    }
    for (const step of ticks(steps[0], steps[last])) write(step, x(step), height - bottom + 16, "middle");
    write("step", (left + width - right) / 2, height - 4, "middle");
    rule(y(guess), "vit-run-guess");
    write(guessed, width - right, y(guess) - 5, "end");
    const points = steps.map((step, at) => `${x(step)},${y(values[at])}`).join(" ");
    shape("polyline", { points, class: "vit-run-line" }, svg);
    const line = shape("line", { y1: top, y2: height - bottom, class: "vit-run-now" }, svg);
    const dot = shape("circle", { r: 5, class: "vit-run-dot" }, svg);
    hoverable(svg, (event) => {
      const at = spotUnder(event, svg)[0] * width, away = steps.map((step) => Math.abs(x(step) - at));
      stop();
      go(away.indexOf(Math.min(...away)));
    });
    return (now) => {
      adjust(line, { x1: x(steps[now]), x2: x(steps[now]) });
      adjust(dot, { cx: x(steps[now]), cy: y(values[now]) });
    };
  }

  function paint() {
    const answers = unbind(probabilities[moment]), seen = unbind(maps[moment]);
    let right = 0;
    columns.forEach(({ map, says, show, paintMap }, at) => {
      paintMap(map, seen[at], most);
      frameSquare(map, at);
      const shares = answers[at], best = strongest(shares), truth = labels[at];
      right += best === truth;
      says.textContent = best === truth ? `✓ says ${classes[best]}` : `✗ says ${classes[best]}, not ${classes[truth]}`;
      show(shares[truth], `${percent(shares[truth])} for ${classes[truth]}`);
    });
    paintFilters();
    plots.forEach((mark) => mark(moment));
    when.textContent = `step ${steps[moment]} of ${steps[last]}`;
    curves.setAttribute("aria-valuenow", steps[moment]);
    curves.setAttribute("aria-valuetext", `step ${steps[moment]}, ${percent(data.accuracy[moment])} right`);
    play.textContent = timer ? "❚❚ pause" : "▶ play";
    if (!timer) tell(sentence(right)); // nobody can listen to a sentence for each moment while it plays
  }

  // The numbers of the filters, or their change since the first moment, which is brightened to its own scale.
  function paintFilters() {
    const length = (all) => Math.sqrt(all.reduce((sum, one) => sum + one * one, 0)), change = changeAt(moment);
    const levels = changes ? change.map((level) => (127 * level) / mostChange) : filters[moment];
    for (let filter = 0; filter < kept; filter++) {
      const plane = (channel) => filter * patchDim + (channel % channels) * side * side;
      const colour = (place) => [0, 1, 2].map((channel) => 128 + levels[plane(channel) + place]);
      ink.drawImage(sheet(side, side, colour), ...boxOf(filter, across, side + 1).slice(0, 2));
    }
    const share = percentOf(length(change) / (length(filters[0]) || 1));
    moved.textContent = `Since step ${steps[0]} they have changed by ${share} of their size.`;
    wall.setAttribute("aria-label", `${changes ? "changes of " : ""}${kept} filters. ${moved.textContent}`);
  }

  function sentence(right) {
    const known = `Step ${steps[moment]} of ${steps[last]}: the loss is ${data.loss[moment].toFixed(2)}, and `
      + `${percent(data.accuracy[moment])} of the validation images are named right. `
      + `The model names ${right} of these ${labels.length} pictures right.`;
    if (!data.mass) return known;
    return `${known} Of the attention that the class token gives to their patches, ${percentOf(data.mass[moment])} `
      + `goes to the framed squares, which are ${percentOf(data.area)} of the pictures.`;
  }

  function go(to) { if (to !== moment) { moment = to; draw(); } }
  function start() {
    if (moment === last) go(0);
    timer = setInterval(() => moment === last ? stop() : go(moment + 1), PAUSE);
    draw();
  }
  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    draw();
  }
  keys(curves, (key) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -last, End: last }[key];
    if (!by) return false;
    stop();
    go(clamp(0, moment + by, last));
    return true;
  });
  return { paint, state: () => ({ moment, playing: timer !== null }) };
}
