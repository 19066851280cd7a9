// A question with its answers as buttons: a tap unfolds why an answer is right or wrong. Nothing is said before.
import { button, element, hint, readout } from "./view.js";

export function predict(stage, { question, choices }) {
  const tried = new Set();
  let needed = 0; // how many answers were tapped up to the right one: later taps only read
  const group = element("div", { class: "vit-predict", role: "group", "aria-label": question }, stage);
  element("strong", { text: question }, group);
  hint(group, "Tap the answer that you expect, before you read on.");
  choices.forEach(({ answer, right, sentence }) => {
    const line = element("div", {}, group);
    const asked = button(line, "", unfold, { "aria-expanded": "false" });
    const sign = element("span", { text: "○", "aria-hidden": "true" }, asked);
    element("span", { text: answer }, asked);
    const why = readout(line); // heard when it is filled
    function unfold() {
      const open = asked.getAttribute("aria-expanded") !== "true";
      asked.setAttribute("aria-expanded", String(open));
      tried.add(answer);
      sign.textContent = right ? "✓" : "✗";
      line.className = right ? "vit-predict-right" : "vit-predict-wrong";
      why(open ? `${right ? "Right" : "Not so"}: ${sentence}` : "");
      if (right) needed ||= tried.size;
      if (!needed) return;
      const taps = needed === 1 ? "your first tap" : `tap number ${needed}`;
      score(`You found it with ${taps}. The other answers still say why they are wrong.`);
    }
  });
  const score = readout(group);
  return { paint() {}, state: () => ({ needed }) };
}
