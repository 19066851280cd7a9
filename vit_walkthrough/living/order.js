// Drag patches to other places, and read what the model says: with positions it notices, without them it cannot.
import { cached, forward, grid, softmax } from "./vit.js";
import { bars, boxOf, button, choice, draggable, element, figure, gridLines, hint, largest } from "./view.js";
import { outline, percent, pointable, readout, strongest } from "./view.js";

const BLUE = "#0072b2", BLACK = "#000", HOLD = 150; // milliseconds after which a finger drags and no longer scrolls

export function order(stage, data, draw) {
  const { image, config, weights, classes } = data, { rows, cols, patches } = grid(config);
  const side = image.width / cols, inPlace = Array.from({ length: patches }, (_, patch) => patch);
  const answer = (options) => softmax(forward(weights, config, image.numbers, { positions, ...options }).get("output"));
  const untouched = new Map(); // the answer of the picture as it was, with and without positions
  let arranged = [...inPlace], positions = config.positions !== "none", cursor = 0, lifted = null, drag = null, is, was;

  const controls = element("div", { class: "vit-controls" }, stage);
  const byPositions = choice(controls, "positions", [[true, "on"], [false, "off"]], positions,
    (on) => { positions = on; draw(); });
  byPositions.group.hidden = config.positions === "none";
  button(controls, "shuffle", () => {
    const dice = inPlace.map(Math.random);
    rearrange([...inPlace].sort((one, other) => dice[one] - dice[other]));
  });
  button(controls, "put back", () => rearrange([...inPlace]));
  hint(stage, "Drag a patch onto another, and the two swap. You can also click one and then the other. "
    + "With keys, Enter picks a patch up, arrows move it, and Enter drops it.");
  const main = element("div", { class: "vit-order" }, stage);
  const label = "The picture in patches. Enter picks a patch up, arrow keys move it, Enter drops it, Escape lets it go";
  const view = figure(main, image, { label, kind: "vit-first" });
  const answers = element("div", { class: "vit-order-answers" }, main);
  const [now, before] = ["the answer now", "the answer before"].map((title) =>
    bars(element("div", {}, answers), classes, title));
  const tell = readout(stage);

  pointable(view, { rows, cols }, { current: () => cursor, point: (patch) => { cursor = patch; draw(); }, enter: take,
    letGo: () => { lifted = drag = null; draw(); } });
  draggable(view.canvas, (event) => { // what is dragged out of the picture is dropped at its edge
    drag = { time: event.timeStamp, again: lifted !== null };
    lifted ??= cursor;
    draw();
    return () => {};
  }, (cancelled) => {
    if (cancelled && !drag?.again) lifted = null;
    else if (!cancelled && drag && (cursor !== lifted || drag.again)) take(); // else a click: it stays picked up
    drag = null;
    draw();
  });
  // A finger that moves sideways (see touch-action), or rested first, drags a patch; else it scrolls the page.
  view.canvas.addEventListener("touchmove", (event) => {
    if (drag && event.cancelable && event.timeStamp - drag.time > HOLD) event.preventDefault();
  }, { passive: false });

  // Pick up what is under the cursor, or drop there what was picked up.
  function take() {
    if (lifted !== null) return rearrange(shownOrder());
    lifted = cursor;
    draw();
  }
  function rearrange(next) { [arranged, lifted] = [next, null]; draw(); }

  // The order with the swap that would happen now.
  function shownOrder() {
    const swapped = [...arranged];
    if (lifted !== null) [swapped[lifted], swapped[cursor]] = [swapped[cursor], swapped[lifted]];
    return swapped;
  }

  function paint() {
    const shown = shownOrder(), { context } = view;
    was = cached(untouched, positions, () => answer({}));
    const moved = shown.filter((patch, at) => patch !== at).length;
    is = moved ? answer({ order: shown }) : was;
    shown.forEach((patch, at) =>
      context.drawImage(image.canvas, ...boxOf(patch, cols, side), ...boxOf(at, cols, side)));
    gridLines(view, { rows, cols });
    if (lifted !== null) outline(view, { rows, cols }, lifted, BLACK);
    outline(view, { rows, cols }, cursor, BLUE);
    shown.forEach((patch, at) => { if (patch !== at) numbered(patch, at); });
    view.words.textContent = lifted === null ? "A patch that moved shows the number of its old place."
      : `Patch ${arranged[lifted]} is picked up.`;
    now(is);
    before(was);
    tell(sentence(moved));
  }

  // The number of a patch's own place, in its corner.
  function numbered(patch, at) {
    const { context } = view, high = side * 0.32, [left, top] = boxOf(at, cols, side).map((one) => one + 0.14 * side);
    Object.assign(context, { font: `${high * 0.9}px system-ui, sans-serif`, textBaseline: "middle" });
    context.fillStyle = "rgba(0,0,0,0.65)";
    context.fillRect(left, top, context.measureText(patch).width + high * 0.4, high);
    context.fillStyle = "#fff";
    context.fillText(patch, left + high * 0.2, top + high * 0.55);
  }

  function sentence(moved) {
    const best = strongest(is), first = strongest(was), says = `the model says ${classes[best]} (${percent(is[best])})`;
    const how = positions ? "With positions" : "Without positions";
    if (!moved) return `Every patch is in its place. ${how}, ${says}.`;
    const change = largest(is.map((one, at) => Math.abs(one - was[at])));
    const places = `${moved} of ${patches} patches are in another place.`;
    if (change <= 1e-5)
      return `${places} ${how}, the answer is the same to rounding: no probability changes by more than 0.00001.`;
    const told = change.toFixed(change < 0.01 ? 5 : 2);
    const after = best === first ? `still says ${classes[best]} (${percent(is[best])})`
      : `now says ${classes[best]} (${percent(is[best])}), and said ${classes[first]} before`;
    return `${places} ${how}, the largest change of any probability is ${told}: the model ${after}.`;
  }
  return { paint, state: () => ({ order: shownOrder(), positions, cursor, lifted, is, was }) };
}
