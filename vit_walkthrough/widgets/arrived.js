(image) => { // when the picture of a panel has arrived
  // A script that comes inside of a widget is not run. A copy of it is.
  const old = image.parentElement.querySelector("script:not([type])"), script = document.createElement("script");
  if (old) {
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
  // A notebook takes keys before a slider or a menu sees them, unless the element with the focus carries this mark. A
  // slider makes new handles when its range changes, so all are marked again with every picture.
  for (const one of image.closest(".vit-panel")?.querySelectorAll(".noUi-handle,select,button,input") ?? []) {
    one.setAttribute("data-lm-suppress-shortcuts", "true");
    if (one.matches(".widget-toggle-button")) one.setAttribute("aria-pressed", String(one.matches(".mod-active")));
    const slider = one.matches(".noUi-handle") && one.closest(".widget-slider");
    if (!slider || one.observed) continue;
    // For screen readers: its name, and the value that stands beside it; the slider's own is the number of the option.
    one.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
    const tell = () => {
      const value = slider.querySelector(".widget-readout").textContent;
      if (one.getAttribute("aria-valuetext") !== value) one.setAttribute("aria-valuetext", value);
    };
    one.observed = new MutationObserver(tell);
    const changes = { subtree: true, childList: true, characterData: true, attributeFilter: ["aria-valuetext"] };
    one.observed.observe(slider, changes);
    tell();
  }
}
