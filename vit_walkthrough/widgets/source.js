(element) => { // of the file input, when a file was chosen; of the camera's button, when it was pressed
  const box = element.closest(".vit-own"), said = box.querySelector("[role=alert]"), video = box.querySelector("video");
  const area = element.closest(".vit-panel").querySelector(".vit-file textarea");
  const tell = (words) => { said.textContent = words; };
  const send = (address) => { // by way of a text widget, which every version of ipywidgets has
    area.value = address;
    for (const kind of ["input", "change"]) area.dispatchEvent(new Event(kind, { bubbles: true }));
  };
  const shrunk = async (file) => { // photos are often larger than may be sent, and no model here sees so much of them
    const whole = await createImageBitmap(file), scale = Math.min(1, 1024 / Math.max(whole.width, whole.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(scale * whole.width));
    canvas.height = Math.max(1, Math.round(scale * whole.height));
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  };
  const stop = () => {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
    video.hidden = true;
    box.querySelector("button").textContent = "use the camera";
  };
  // What was said of the file before goes, in the kernel's words or in these.
  for (const alert of box.closest(".vit-source").querySelectorAll("[role=alert]")) alert.textContent = "";

  if (element.type === "file") {
    const file = element.files[0], limit = Number(box.dataset.limit), reader = new FileReader();
    if (!file) return;
    if (file.size > limit) { // the server would cut the connection without a word
      shrunk(file).then((address) => { if (element.files[0] === file) send(address); }, () => tell(
        file.name + " has " + Math.ceil(file.size / 1e5) / 10 + " MB, more than the " + limit / 1e6 + " MB that can be "
        + "sent from here, and the browser cannot make it smaller: choose a smaller copy of it."));
      return;
    }
    reader.onload = () => send(reader.result);
    reader.onerror = () => tell("The browser cannot read " + file.name + ": choose another file.");
    reader.readAsDataURL(file);
    return;
  }

  if (video.srcObject) { // the second press takes the picture
    const width = video.videoWidth, height = video.videoHeight, side = Math.min(width, height);
    if (!side) return; // not yet awake
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.min(side, 720);
    canvas.getContext("2d").drawImage(
      video, (width - side) / 2, (height - side) / 2, side, side, 0, 0, canvas.width, canvas.width);
    stop();
    send(canvas.toDataURL("image/png"));
    return;
  }
  if (!navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) {
    tell("The browser lets this page use no camera (it does on https and on localhost): choose a file.");
    return;
  }
  navigator.mediaDevices.getUserMedia({ video: true }).then((stream) => {
    stop(); // a second press may have asked for a second stream
    video.srcObject = stream;
    video.hidden = false;
    video.play();
    element.textContent = "take the picture";
    const watch = setInterval(() => { // a camera that nobody sees is off
      if (video.srcObject && video.offsetParent) return;
      clearInterval(watch);
      stop();
    }, 500);
  }, (error) => tell("No camera (" + error.message + "): choose a file."));
}
