(input) => { // the file input, when a file was chosen
  const box = input.closest(".vit-own"), said = box.querySelector("[role=alert]");
  const area = input.closest(".vit-panel").querySelector(".vit-file textarea");
  const file = input.files[0], limit = Number(box.dataset.limit), reader = new FileReader();
  const send = (address) => { // through a text widget, which every version of ipywidgets has
    area.value = address;
    for (const kind of ["input", "change"]) area.dispatchEvent(new Event(kind, { bubbles: true }));
  };
  const shrunk = async () => { // photos are often larger than may be sent, and no model here sees so much of them
    const whole = await createImageBitmap(file), scale = Math.min(1, 1024 / Math.max(whole.width, whole.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(scale * whole.width));
    canvas.height = Math.max(1, Math.round(scale * whole.height));
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  };
  // Whatever was said of the file before goes, the kernel's words and the page's.
  for (const alert of box.closest(".vit-source").querySelectorAll("[role=alert]")) alert.textContent = "";
  if (!file) return;
  if (file.size > limit) { // the server would cut the connection without a word
    shrunk().then((address) => { if (input.files[0] === file) send(address); }, () => {
      said.textContent = file.name + " has " + Math.ceil(file.size / 1e5) / 10 + " MB, more than the " + limit / 1e6
        + " MB that can be sent, and the browser cannot make it smaller. Choose a smaller copy of it.";
    });
    return;
  }
  reader.onload = () => send(reader.result);
  reader.onerror = () => { said.textContent = "The browser cannot read " + file.name + ". Choose another file."; };
  reader.readAsDataURL(file);
}
