"""The gallery says what its maps score: drawn now, as stored, whole and apart."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from vit_walkthrough import record
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.draw.images import blend
from vit_walkthrough.draw.readme import draw_gallery
from vit_walkthrough.look.explain import mass_on_object, relevance, rollout
from vit_walkthrough.train.loop import evaluate, init_model
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint, load_tiny

STORED = Path(__file__).parents[2] / "images"
every_model = pytest.mark.parametrize("model", [(8, 4), (6, 4), (16, 1)])


def texts(ax):
    return [text for text in ax.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


@pytest.fixture(scope="module", params=[(8, 4), (12, 2)], ids=str)
def measured(request):
    """What the gallery has to show, worked out here."""
    side = request.param[0]
    model = load_tiny(*request.param)
    images, labels, masks = ClutteredDigits("test").sample(100, draw=0)
    attention, answers = [], []
    for network in (model, init_model(model.config, ClutteredDigits("train")).eval()):
        with torch.no_grad(), record(network, "*.attention.weights") as trace:
            answers.append(network(images).argmax(-1))
        attention.append(trace.attention)
    said = answers[0]
    light = rearrange(images.amax(1), "b (rows ph) (cols pw) -> b (rows cols) (ph pw)", ph=side, pw=side).mean(-1)
    maps = {
        "last block": attention[0][-1, :, :, 0, 1:].mean(1),
        "rollout": rollout(attention[0])[:, 0, 1:],
        "relevance": relevance(model, images, said),
        "untrained": attention[1][-1, :, :, 0, 1:].mean(1),
        "contrast": (light - light.median(-1, keepdim=True).values).clamp(min=0),
    }
    return request.param, model.config, images, labels, masks, said, maps


def test_under_every_map_stands_its_share_of_mass_on_the_digit(measured):
    which, config, images, labels, masks, said, maps = measured
    ax = draw_gallery(*which)
    shown = [*range(6), next(k for k in range(100) if said[k] != labels[k])]
    labelled = {text.get_position(): text.get_text() for text in texts(ax)}
    pictures = {tuple(artist.get_extent()): np.asarray(artist.get_array()) for artist in ax.images}
    means = [text.get_text() for text in texts(ax) if text.get_fontsize() == 13]
    assert len(means) == len(maps)
    for (name, each), mean in zip(maps.items(), means, strict=True):
        scores = mass_on_object(each, masks)
        assert mean == f"{scores.mean():.0%}"
        for index in shown:
            expected = blend(images[index], each[index].reshape(config.rows, config.cols))
            places = [place for place, held in pictures.items()
                      if held.shape == expected.shape and np.abs(held - expected).max() < 1e-3]  # fmt: skip
            assert len(places) == 1, (name, index)
            left, right, bottom, _ = places[0]
            under = [words for (x, y), words in labelled.items()
                     if abs(x - (left + right) / 2) < 0.01 and 0 < bottom - y < 0.2]  # fmt: skip
            assert under == [f"{scores[index]:.0%}"], (name, index)


def test_every_answer_stands_under_its_image_and_the_wrong_one_is_named(measured):
    which, _, images, labels, _, said, _ = measured
    ax = draw_gallery(*which)
    words = [text.get_text() for text in texts(ax)]
    wrong = next(k for k in range(100) if said[k] != labels[k])
    answers = [word for word in words if word.startswith("“")]
    assert answers == [*(f"“{k}”" for k in said[:6].tolist()), f"“{said[wrong]}”, is a {labels[wrong]}"]
    held = [np.asarray(artist.get_array()) for artist in ax.images]
    for index in (*range(6), wrong):
        assert any(np.array_equal(array, images[index].permute(1, 2, 0)) for array in held)


def test_the_controls_give_the_scores_a_meaning(measured):
    *_, masks, _, maps = measured
    mean = {name: mass_on_object(each, masks).mean().item() for name, each in maps.items()}
    area = masks.float().mean().item()
    assert area == 0.25
    assert min(mean[name] for name in ("last block", "rollout", "relevance")) > 1.5 * area
    assert mean["untrained"] < mean["rollout"]
    assert mean["contrast"] > mean["rollout"]


def test_the_outlines_are_the_squares_that_are_measured():
    ax = draw_gallery()
    _, _, masks = ClutteredDigits("test").sample(100, draw=0)
    left, _, bottom, top = ax.images[0].get_extent()
    unit = (top - bottom) / 48
    rows, cols = masks[0].nonzero().unbind(1)
    square = np.array([left + cols.min() * unit, top - (rows.max() + 1) * unit])
    corners = [path.vertices[0] for piece in ax.collections for path in piece.get_paths()]
    assert any(np.allclose(corner, square, atol=1e-6) for corner in corners)


@every_model
def test_the_accuracy_is_the_stored_one_and_a_fresh_test_agrees(model):
    words = " ".join(text.get_text() for text in texts(draw_gallery(*model)))
    scores = load_checkpoint(bundled()[model])[1]
    assert f"load_tiny{model}" in words
    assert f"{scores['test_accuracy']:.1%} of {scores['test_images']:,}" in words
    if model == (8, 4):
        assert evaluate(load_tiny(*model), ClutteredDigits("test", seed=1), 500) == pytest.approx(
            scores["test_accuracy"], abs=0.03
        )


@every_model
def test_words_are_large_enough_whole_and_apart(model):
    ax = draw_gallery(*model)
    figure = ax.figure
    assert figure.get_figwidth() <= 9.2
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(ax)]
    assert min(text.get_fontsize() for text in texts(ax)) >= 8
    pictures = [artist.get_window_extent(renderer) for artist in ax.images]
    margin = 12
    for label, box in boxes:
        assert box.x0 >= margin, label
        assert box.y0 >= margin, label
        assert box.x1 <= figure.bbox.x1 - margin, label
        assert box.y1 <= figure.bbox.y1 - margin, label
        assert not any(box.overlaps(picture) for picture in pictures), label
    for (label, box), (other, other_box) in combinations(boxes, 2):
        assert not box.overlaps(other_box), (label, other)
    for one, other in combinations(pictures, 2):
        assert min(one.x1 - other.x0, other.x1 - one.x0, one.y1 - other.y0, other.y1 - one.y0) < 0
