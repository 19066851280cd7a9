"""The gallery says what its maps score, and every notebook has a thumbnail: drawn now, as stored, whole and apart."""

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
from timing import assert_at_most

from vit_walkthrough import diagrams, gallery, record
from vit_walkthrough.data import ClutteredDigits, photo
from vit_walkthrough.explain import mass_on_object, position_similarity, relevance, rollout
from vit_walkthrough.gallery import draw_gallery, draw_thumbnail
from vit_walkthrough.plots import blend, render
from vit_walkthrough.pretrained import bundled, load_checkpoint, load_tiny
from vit_walkthrough.training import evaluate, fresh

STORED = Path(__file__).parents[1] / "images"
NUMBERS = range(11)
every_model = pytest.mark.parametrize("model", [(8, 4), (6, 4), (16, 1)])
every_thumbnail = pytest.mark.parametrize("number", NUMBERS)


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
    for network in (model, fresh(model.config, ClutteredDigits("train")).eval()):
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


# The thumbnails.


@every_thumbnail
def test_a_thumbnail_is_small_opaque_and_wordless(number):
    ax = draw_thumbnail(number)
    assert texts(ax) == []
    picture = Image.open(io.BytesIO(gallery.IMAGES[f"thumbs/{number:02}.png"]()))
    assert picture.size == (240, 180)
    assert picture.mode in ("RGB", "P")
    assert "transparency" not in picture.info


@every_thumbnail
def test_a_thumbnail_keeps_a_white_margin_and_fills_the_rest(number):
    drawn = (pixels(render(draw_thumbnail(number), tight=False)) < 250).any(axis=2)
    (top, left), (bottom, right) = np.argwhere(drawn).min(axis=0), np.argwhere(drawn).max(axis=0)
    assert min(top, left, 179 - bottom, 239 - right) >= 8
    assert right - left >= 150
    assert bottom - top >= 90


def test_thumbnails_are_told_apart():
    small = [Image.open(STORED / f"thumbs/{number:02}.png").convert("RGB").resize((24, 18)) for number in NUMBERS]
    for (one, first), (other, second) in combinations(enumerate(small), 2):
        apart = np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean()
        assert apart > 20, (one, other)


def holds(number, values):
    values = np.asarray(values)
    held = [np.asarray(artist.get_array()) for artist in draw_thumbnail(number).images]
    return any(array.shape == values.shape and np.allclose(array, values, atol=1e-3) for array in held)


def test_thumbnails_show_real_data():
    model, cat = load_tiny(8, 4), gallery._cat()
    images, _, _ = ClutteredDigits("test").sample(100, draw=0)
    for patch in range(12):
        assert holds(1, cat.tile(patch))
    assert holds(2, cat.sequence[:1, :6])
    assert holds(2, cat.sequence[7:8, :6])
    similar = position_similarity(model.position_embedding.positions)
    assert holds(3, similar[2 * 6 + 3].reshape(6, 6))
    assert holds(4, photo("cat", (168, 224)).permute(1, 2, 0)[56:84, 168:196])  # the eye, which is the query
    with torch.no_grad(), record(model, "*.attention.weights") as trace:
        model(photo("cat", 48)[None])
    for head in range(4):
        assert holds(5, blend(photo("cat", 48), trace.attention[0, 0, head, 17, 1:].reshape(6, 6)))
    assert holds(8, images[1].permute(1, 2, 0))
    assert holds(9, images[3].permute(1, 2, 0))
    assert holds(9, blend(images[3], relevance(model, images[3:4])[0].reshape(6, 6)))
    assert holds(10, model.blocks[0].attention.qkv.weight[:8, :8].detach())


def test_the_curve_is_a_real_one():
    losses = np.array(gallery.falling_loss())
    assert losses[0] == pytest.approx(np.log(10), abs=0.05)
    assert losses[-1] < 0.5 * losses[0]
    segments = [part for piece in draw_thumbnail(8).collections if hasattr(piece, "get_segments")
                for part in piece.get_segments()]  # fmt: skip
    heights = max(segments, key=len)[:, 1]
    assert len(heights) == len(losses)
    assert np.corrcoef(heights, losses)[0, 1] > 0.9999


@pytest.mark.parametrize("number", [-1, 11])
def test_a_notebook_that_does_not_exist_has_no_thumbnail(number):
    with pytest.raises(ValueError, match=f"no notebook {number}; choose 0 to 10"):
        draw_thumbnail(number)


# All of them.


def test_drawing_throws_nobody_else_s_dice():
    gallery.measured_maps.cache_clear()
    gallery.falling_loss.cache_clear()
    dice = torch.get_rng_state()
    draw_gallery()
    for number in NUMBERS:
        draw_thumbnail(number)
    assert torch.equal(torch.get_rng_state(), dice)


def forget():
    for name in ("measured_maps", "falling_loss", "_cat", "_digits"):
        getattr(gallery, name).cache_clear()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", gallery.IMAGES)
def test_a_picture_is_drawn_quickly(name):
    def draw():
        forget()
        render(draw_gallery() if name == "gallery.png" else draw_thumbnail(int(name[-6:-4])), tight=False)

    draw()  # with what has to be imported
    assert_at_most(2 if name == "gallery.png" else 0.3, draw)


def test_there_is_one_thumbnail_for_each_notebook():
    assert set(gallery.IMAGES) == {"gallery.png", *(f"thumbs/{number:02}.png" for number in NUMBERS)}
    numbers = {int(path.name[:2]) for path in (STORED.parent / "notebooks").glob("*.ipynb")}
    assert numbers <= set(NUMBERS)


@pytest.mark.parametrize("name", gallery.IMAGES)
def test_the_stored_pictures_are_those_that_are_drawn_now(name):
    path = STORED / name
    assert path.stat().st_size < (700_000 if name == "gallery.png" else 60_000)
    stored, now = pixels(path.read_bytes()), pixels(gallery.IMAGES[name]())
    assert stored.shape == now.shape
    assert np.abs(stored - now).mean() < 1


def test_one_command_writes_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr(diagrams, "IMAGES", {"vit.png": lambda: b"the hero"})
    monkeypatch.setattr(gallery, "IMAGES", {name: name.encode for name in gallery.IMAGES} | {"gallery.png": bytes})
    diagrams.write(tmp_path / "images")
    written = {path.relative_to(tmp_path / "images").as_posix() for path in tmp_path.rglob("*.png")}
    assert written == {"vit.png", *gallery.IMAGES}
    assert (tmp_path / "images/thumbs/03.png").read_bytes() == b"thumbs/03.png"
