"""The README's pictures: what the gallery says its maps score, and that the stored pictures are those drawn now."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from vit_walkthrough import record
from vit_walkthrough.data import ClutteredDigits, photo
from vit_walkthrough.draw.plots import ROLES, blend
from vit_walkthrough.draw.readme import IMAGES, animate_patches, draw_gallery
from vit_walkthrough.look.explain import mass_on_object, relevance, rollout
from vit_walkthrough.train.loop import evaluate, init_model
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint, load_tiny


@pytest.fixture(scope="module")
def gallery():
    return draw_gallery()


def said(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture(scope="module")
def measured():
    """What the gallery has to show, worked out here."""
    model, (images, labels, masks) = load_tiny(8, 4), ClutteredDigits("test").sample(100, draw=0)
    attention, answers = [], []
    for network in (model, init_model(model.config, ClutteredDigits("train")).eval()):
        with torch.no_grad(), record(network, "*.attention.weights") as trace:
            answers.append(network(images).argmax(-1))
        attention.append(trace.attention)
    light = rearrange(images.amax(1), "b (rows ph) (cols pw) -> b (rows cols) (ph pw)", ph=8, pw=8).mean(-1)
    maps = {
        "last block": attention[0][-1, :, :, 0, 1:].mean(1),
        "rollout": rollout(attention[0])[:, 0, 1:],
        "relevance": relevance(model, images, answers[0]),
        "untrained": attention[1][-1, :, :, 0, 1:].mean(1),
        "contrast": (light - light.median(-1, keepdim=True).values).clamp(min=0),
    }
    wrong = (answers[0] != labels).nonzero()[0].item()
    return images, labels, masks, answers[0], maps, [*range(6), wrong]


def test_under_every_map_stands_its_share_of_mass_on_the_digit(gallery, measured):
    images, _, masks, _, maps, shown = measured
    pictures = [(artist.get_extent(), np.asarray(artist.get_array())) for artist in gallery.images]
    means = [text.get_text() for text in gallery.texts if text.get_fontsize() == 13]
    for (name, weights), mean in zip(maps.items(), means, strict=True):
        scores = mass_on_object(weights, masks)
        assert mean == f"{scores.mean():.0%}"
        for index in shown:
            expected = blend(images[index], weights[index].reshape(6, 6))
            places = [place for place, held in pictures
                      if held.shape == expected.shape and np.abs(held - expected).max() < 1e-3]  # fmt: skip
            assert len(places) == 1, (name, index)
            left, right, bottom, _ = places[0]
            under = [text.get_text() for text in gallery.texts
                     if abs(text.get_position()[0] - (left + right) / 2) < 0.01
                     and 0 < bottom - text.get_position()[1] < 0.2]  # fmt: skip
            assert under == [f"{scores[index]:.0%}"], (name, index)


def test_every_answer_stands_under_its_image_and_the_wrong_one_is_named(gallery, measured):
    images, labels, _, answers, _, shown = measured
    *right, wrong = shown
    expected = [*(f"“{answers[k]}”" for k in right), f"“{answers[wrong]}”, is a {labels[wrong]}"]
    assert [word for word in said(gallery) if word.startswith("“")] == expected
    held = [np.asarray(artist.get_array()) for artist in gallery.images]
    for index in shown:
        assert any(np.array_equal(array, images[index].permute(1, 2, 0)) for array in held)


def test_the_controls_give_the_scores_a_meaning(measured):
    _, _, masks, _, maps, _ = measured
    mean = {name: mass_on_object(each, masks).mean().item() for name, each in maps.items()}
    area = masks.float().mean().item()
    assert area == 0.25
    assert min(mean[name] for name in ("last block", "rollout", "relevance")) > 1.5 * area
    assert mean["untrained"] < mean["rollout"] < mean["contrast"]


def test_the_outlines_are_the_squares_that_are_measured(gallery, measured):
    _, _, masks, *_ = measured
    left, _, bottom, top = gallery.images[0].get_extent()
    rows, cols = masks[0].nonzero().unbind(1)
    unit = (top - bottom) / 48
    square = [left + cols.min() * unit, top - rows.min() * unit, left + (cols.max() + 1) * unit]
    outlines = [path.vertices for piece in gallery.collections for path in piece.get_paths()]
    found = [(points[:, 0].min(), points[:, 1].max(), points[:, 0].max()) for points in outlines]
    assert any(np.allclose(square, each, atol=1e-6) for each in found)


def test_the_accuracy_is_the_stored_one_and_a_fresh_test_agrees(gallery):
    scores = load_checkpoint(bundled()[8, 4])[1]
    assert f"{scores['test_accuracy']:.1%} of {scores['test_images']:,}" in " ".join(said(gallery))
    fresh = evaluate(load_tiny(8, 4), ClutteredDigits("test", seed=1), 500)
    assert fresh == pytest.approx(scores["test_accuracy"], abs=0.03)


def test_words_are_large_enough_whole_and_apart(gallery):
    renderer, page = FigureCanvasAgg(gallery.figure).get_renderer(), gallery.figure.bbox.padded(-12)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in gallery.texts]
    boxes += [("a picture", artist.get_window_extent(renderer).padded(-0.5)) for artist in gallery.images]
    assert min(text.get_fontsize() for text in gallery.texts) >= 8
    for label, box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, label
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, label
    for (label, box), (other, other_box) in combinations(boxes, 2):
        assert not box.overlaps(other_box), (label, other)


def test_the_animation_begins_with_the_picture_and_ends_with_the_class_token():
    flight = Image.open(io.BytesIO(animate_patches()))
    assert flight.n_frames > 10
    assert flight.info["loop"] == 0
    first = np.asarray(flight.convert("RGB"), dtype=float)
    dark = np.argwhere((first < 240).all(axis=2) & (np.arange(first.shape[1]) > 200))
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
    cut = Image.fromarray(first[top:bottom, left:right].astype(np.uint8)).resize((224, 224))
    assert np.abs(np.asarray(cut) / 255 - photo("cat", 224).permute(1, 2, 0).numpy()).mean() < 0.04
    orange = (255 * np.array(to_rgb(ROLES["class"]))).round()
    assert not (first == orange).all(axis=2).any()
    flight.seek(flight.n_frames - 1)
    assert (np.asarray(flight.convert("RGB")) == orange).all(axis=2).sum() > 100


@pytest.mark.parametrize("name", IMAGES)
def test_the_stored_pictures_are_those_that_are_drawn_now(name):
    path = Path(__file__).parents[2] / "images" / name
    assert path.stat().st_size < 1_000_000
    stored, now = (Image.open(io.BytesIO(data)) for data in (path.read_bytes(), IMAGES[name]()))
    assert stored.size == now.size
    for frame in {0, getattr(now, "n_frames", 1) - 1}:
        stored.seek(frame)
        now.seek(frame)
        one, other = (np.asarray(picture.convert("RGB"), dtype=float) for picture in (stored, now))
        assert np.abs(one - other).mean() < 1
