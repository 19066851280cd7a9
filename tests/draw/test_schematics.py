"""The schematics say the config's numbers and show the model's, whole and apart from one another, for any config."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vit_walkthrough import VisionTransformer, ViTConfig, record
from vit_walkthrough.draw import schematics

DRAWINGS = {name.removeprefix("draw_"): draw for name, draw in vars(schematics).items() if name.startswith("draw_")}
CONFIGS = {
    "many": ViTConfig(224, 16, dim=1024, depth=2, heads=16, hidden=4096, classes=21_843),
    "tiny": ViTConfig(48, 8, dim=64, depth=4, heads=4, hidden=256, classes=10),
    "wide": ViTConfig((48, 72), 12, 1, dim=64, depth=1, heads=1, hidden=128, classes=10),
}
TINY = CONFIGS["tiny"]
every_name = pytest.mark.parametrize("name", DRAWINGS)
every_config = pytest.mark.parametrize("key", CONFIGS)


@cache
def drawn(key, name):
    config = CONFIGS[key]
    image = torch.rand(config.channels, config.height, config.width)
    return DRAWINGS[name](config, image, model=VisionTransformer(config).eval())


def arrays(ax):
    return [np.asarray(artist.get_array()) for artist in ax.images]


def holds(ax, values):
    """Whether some strip shows the first of these values, all that it shows being theirs."""
    rows = [array.ravel() for array in arrays(ax) if array.ndim == 2 and 1 in array.shape]
    return any(2 <= len(row) <= len(values) and np.allclose(row, values[: len(row)], atol=1e-5) for row in rows)


@every_name
@every_config
def test_words_and_pictures_are_large_enough_whole_and_apart(key, name):
    ax = drawn(key, name)
    renderer, whole = FigureCanvasAgg(ax.figure).get_renderer(), ax.figure.bbox.padded(0.5)
    texts = [text for text in ax.texts if text.get_text().strip()]
    assert ax.figure.get_figwidth() <= 10
    assert min(text.get_fontsize() for text in texts) >= 8
    labels = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    pictures = [("a picture", artist.get_window_extent(renderer).padded(-0.5)) for artist in ax.images]
    for label, box in labels + pictures:
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, label
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, label
    for (label, box), (other, other_box) in combinations(labels + pictures, 2):
        assert not box.overlaps(other_box), (label, other)


def expected(c):
    def shape(*sides):
        return " × ".join(f"{side:,}" for side in sides)

    tokens, square = shape(c.height * c.width // c.patch_size**2 + 1, c.dim), shape(c.tokens, c.tokens)
    return {
        "heads": [f"1 of {c.tokens:,}", f"keys = {c.heads} × {square}", f"head {c.heads - 1}"],
        "block": [tokens, f"{c.heads} map{'s' * (c.heads > 1)} of {square}", f"inside: {shape(c.tokens, c.hidden)}"],
    }


@every_name
@every_config
def test_the_numbers_are_the_config_s(key, name):
    words = [text.get_text() for text in drawn(key, name).texts]
    for number in expected(CONFIGS[key])[name]:
        whole = number.replace(",", "").replace(" × ", "").isdigit()
        assert number in words if whole else any(number in text for text in words), number
    assert ("12 more" in words) == ((key, name) == ("many", "heads"))  # what is left out is said


@pytest.fixture
def traced(randomize):
    model, image = randomize(VisionTransformer(TINY)), torch.rand(3, 48, 48)
    with record(model) as trace, torch.no_grad():
        model(image[None])
    return image, model, trace


def test_the_strips_show_what_the_model_computes(traced):
    image, model, trace = traced
    ax, best = schematics.draw_block(TINY, image, model=model), trace.attention[-1, 0, :, 0, 1:].sum(0).argmax()
    for name in ("norm_1.input", "norm_2.input", "attention", "norm_2"):
        assert holds(ax, trace[f"blocks.0.{name}"][0, 1 + best])
    assert holds(ax, trace["blocks.0"][0, 0])


@pytest.mark.parametrize("block", [0, 2])
def test_the_heads_are_those_of_the_block_that_is_told(block, traced):
    image, model, trace = traced
    ax = schematics.draw_heads(TINY, image, model=model, block=block)
    names = ("queries", "keys", "values", "head_outputs", "weights")
    points = {name: trace[f"blocks.{block}.attention.{name}"][0] for name in names}
    best = int(points["weights"][:, 0].mean(0).argmax())
    maps = [array for array in arrays(ax) if array.shape == (48, 48, 3)]
    for head in range(TINY.heads):
        assert all(holds(ax, points[name][head, 0]) for name in ("queries", "head_outputs"))
        for name in ("keys", "values"):
            assert all(holds(ax, points[name][head, other]) for other in (0, best, TINY.patches))
        assert np.array_equal(maps[head], schematics.blend(image, points["weights"][head, 0, 1:].reshape(6, 6)))
    assert holds(ax, trace[f"blocks.{block}.attention.projection"][0, 0])


@every_name
def test_what_does_not_fit_together_is_refused(name):
    for image, key, message in ((torch.rand(3, 32, 32), "tiny", "32"), (torch.rand(3, 48, 48), "wide", "config is")):
        with pytest.raises(ValueError, match=message):
            DRAWINGS[name](TINY, image, model=VisionTransformer(CONFIGS[key]))


def test_of_the_tokens_some_are_followed():
    assert schematics.spaced({36, 0, 2, 17, 1}) == [0, 1, 2, None, 17, None, 36]
