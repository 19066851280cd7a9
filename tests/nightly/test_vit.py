"""vit.js beside torch on many images: all bundled models, in Node and in Chromium."""

import base64

import numpy as np
import pytest
import torch

from tests.browser.conftest import browser, open_file, open_page  # noqa: F401
from tests.living.node import ROOM, differences, eight_bit, in_node
from tests.living.test_vit import assert_every_tensor_equal, options, together
from vit_walkthrough import record
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint


@pytest.mark.parametrize("size", bundled(), ids=str)
def test_two_hundred_images_and_every_option_alone_and_together(size, tmp_path):
    model, images = load_checkpoint(bundled()[size])[0], ClutteredDigits("test").sample(200, draw=0)[0]
    assert_every_tensor_equal(model, tmp_path)
    some = [together(model.config, seed) for seed in range(4)]  # 64 combinations with the sixteen models
    for case in ({}, *options(model.config, 1), *some):
        for ending, bound in (("weights", 1e-5), ("output", 1e-4)):
            (worst,) = differences(model, images, [case], tmp_path, ending)
            assert max(worst.values()) < bound, case


def test_the_answers_to_two_thousand_digits_are_torchs(tmp_path):
    model = eight_bit(load_checkpoint(bundled()[8, 4])[0])
    draws = [ClutteredDigits("test").sample(500, draw=draw)[0] for draw in range(4)]
    with torch.no_grad():
        expected = torch.cat([model(images).argmax(-1) for images in draws]).numpy()
    found = np.concatenate([in_node(model, images, [{}], tmp_path, "output")[0]["output"] for images in draws])
    assert (found.argmax(-1) != expected).sum() <= 2


COMPUTE = """([data, config, count]) => {
  const stored = document.querySelector("script[type='application/json']").textContent;
  const weights = inFull(decode(JSON.parse(stored).weights));
  const images = new Float32Array(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);
  const size = images.length / count, wanted = ["output", "blocks.3.attention.weights"];
  return Array.from({ length: count }, (_, image) => {
    const trace = forward(weights, config, images.slice(image * size, (image + 1) * size));
    return wanted.map((name) => [...trace.get(name)]);
  });
}"""


def test_chromium_computes_what_torch_computes(open_page):  # noqa: F811
    model, images = load_checkpoint(bundled()[8, 4])[0], ClutteredDigits("test").sample(200, draw=0)[0]
    page = open_page(live("cover", model, images[0]).html)
    for file in ("vit.js", "view.js"):
        page.add_script_tag(content=(ROOM / file).read_text(encoding="utf-8").replace("export ", ""))
    data = base64.b64encode(images.numpy().tobytes()).decode()
    found = page.evaluate(COMPUTE, [data, vars(model.config), len(images)])
    with torch.no_grad(), record(rounded := eight_bit(model)) as trace:
        logits = rounded(images)
    for there, here, bound in zip(zip(*found, strict=True), (logits, trace.attention[3]), (1e-4, 1e-5), strict=True):
        assert np.abs(np.array(there) - here.flatten(1).numpy()).max() < bound
