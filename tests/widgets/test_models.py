"""What the panels over stages, over trained and over published models say and show, computed again by other means."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.widgets.panels import address, carried, noise, numbers, turn
from vit_walkthrough import MultiHeadSelfAttention, data, patchify, record, widgets
from vit_walkthrough.data import load_image, photo
from vit_walkthrough.look.explain import attention_distance, mass_on_object
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.weights import bundled, load_checkpoint, load_pretrained, load_tiny
from vit_walkthrough.widgets import explore_published, explore_resolution, explore_vit, published


def digit(place: int):  # in batches of eight, as the notebooks draw them
    return [part[[place % 8]] for part in data.ClutteredDigits("test").sample(8, draw=place // 8)]


def best(probabilities: torch.Tensor) -> list[float]:
    return [probabilities.argmax().item(), 100 * probabilities.max().item()]


def assert_shows(panel, model, image: torch.Tensor):
    """The picture carries this image, and what the model makes of it. Returns the attention and the probabilities."""
    shown = carried(panel.figure)
    with torch.no_grad(), record(model) as trace:
        logits = model(image)[0]
    np.testing.assert_allclose(shown["image"] / 255, image[0].permute(1, 2, 0), atol=0.501 / 255)
    np.testing.assert_allclose(shown["weights"], trace.attention[:, 0], atol=0.51 / 255)
    np.testing.assert_allclose(shown["logits"], logits, atol=1e-5)
    return trace.attention, logits.softmax(-1)


@pytest.mark.parametrize("kind", ["resampled", "cut or filled up"])
def test_explore_resolution_reads_digits_at_another_size(kind):
    panel, trained = explore_resolution(), load_tiny(8, 4)
    learned = trained.position_embedding.positions.detach()
    for place, size in enumerate((24, 96)):
        turn(panel, place=place, size=size, kind=kind)
        side = size // 8
        model = adapt(trained, image_size=size)
        if kind == "cut or filled up":
            positions = model.position_embedding.positions.data.zero_()
            positions[:, :37] = learned[:, : side**2 + 1]
        (image, label, _), (images, labels, _) = digit(place), data.ClutteredDigits("test").sample(40, draw=0)
        resized = (F.interpolate(each, size, mode="bicubic", antialias=True) for each in (image, images))
        image, images = (each.clamp(0, 1) for each in resized)
        _, expected = assert_shows(panel, model, image)
        pattern = (
            rf"^The digit (\d) at (\d+) .* 37 positions, {kind}, serve (\d+) .* (\d) \(([\d.]+)%\)\. .* (\d+)% of 40"
        )
        said = numbers(panel.text, pattern)
        assert said[:5] == pytest.approx([label.item(), size, side**2 + 1, *best(expected)], abs=0.06)
        right = (model(images).argmax(-1) == labels).float().mean().item()
        assert said[5] == pytest.approx(100 * right, abs=0.51)


@pytest.mark.parametrize(("place", "patch_size", "heads"), [(0, 8, 4), (11, 12, 8)])
def test_explore_vit_shows_where_it_looked(place, patch_size, heads):
    panel = explore_vit()
    turn(panel, chosen=("digit", place), patch_size=patch_size, heads=heads)
    image, label, mask = digit(place)
    model, facts = load_checkpoint(bundled()[patch_size, heads])
    attention, probabilities = assert_shows(panel, model, image)
    seen = mass_on_object(attention[-1, :, :, 0, 1:].mean(1), mask).item()
    pattern = (
        r"is the digit (\d)\. .* (\d) \(([\d.]+)%\).* (\d+)% of the p\S+ gets (\d+)% .* ([\d.]+)% of ([\d,]+) unseen"
    )
    said = numbers(panel.text, pattern)
    assert said[:3] == pytest.approx([label.item(), *best(probabilities)], abs=0.06)
    assert said[3:5] == pytest.approx([100 * mask.float().mean().item(), 100 * seen], abs=0.51)
    assert said[5:] == pytest.approx([100 * facts["test_accuracy"], facts["images"]], abs=0.051)


def test_of_a_photo_and_of_ones_own_picture_explore_vit_says_only_what_the_model_says():
    panel, content = explore_vit(), noise()
    panel.controls["chosen"].file.value = address(content)
    for chosen, image in (
        (("cat",), data.photo("cat", 48)),
        (("own", content, False), data.load_image(content, 48)),
        (("own", content, True), 1 - data.load_image(content, 48)),
    ):
        turn(panel, chosen=chosen)
        _, expected = assert_shows(panel, load_tiny(8, 4), image[None])
        assert numbers(panel.text, r" says (\d) \(([\d.]+)%\)") == pytest.approx(best(expected), abs=0.06)
        assert "square" not in panel.text


@pytest.mark.parametrize(("size", "name"), [*zip((4, 32, 224), data.PHOTOS, strict=True)])
def test_explore_patches_cuts_the_photo_and_counts(spy, size, name):
    grids, tiles, panel = spy("plot_grid"), spy("plot_patches"), widgets.explore_patches()
    turn(panel, patch_size=size, photo_name=name)
    patches, image, last = (224 // size) ** 2, data.photo(name, 224), tiles[-1][0][0][-1]
    said = numbers(panel.text, r"= ([\d,]+) patches.* token ([\d,]+) tokens.* = ([\d,]+) numbers.* ([\d,]+) pairs")
    assert said == [patches, patches + 1, 3 * size**2, (patches + 1) ** 2]
    torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
    torch.testing.assert_close(last.reshape(3, size, size), image[:, -size:, -size:], rtol=0, atol=0)


@pytest.mark.parametrize("heads", [1, 12, 48])
def test_explore_heads_shows_that_heads_cost_no_parameters(heads):
    panel = widgets.explore_heads()
    turn(panel, heads=heads)
    patches = patchify(data.photo("cat")[None], 28)[0]
    projection = torch.randn(2352, 48, generator=torch.Generator().manual_seed(0)) / 2352**0.5
    tokens = F.layer_norm((patches - patches.mean(0)) @ projection, (48,))
    torch.manual_seed(0)
    qkv = MultiHeadSelfAttention(48, heads).qkv(tokens).detach()
    queries, keys, _ = qkv.unflatten(-1, (3, heads, 48 // heads)).permute(1, 2, 0, 3)
    expected = (queries @ keys.mT / (48 / heads) ** 0.5).softmax(-1)
    np.testing.assert_allclose(carried(panel.figure)["weights"][0], expected, atol=0.51 / 255)
    said = numbers(panel.text, r"^(\d+) .* = (\d+), ([\d,]+) p.* gets ([\d.]+) .* and ([\d.]+) in .* be ([\d.]+)\.$")
    peaks = expected.amax(-1).mean(-1)
    assert said[:3] == [heads, 48 / heads, 4 * 48 * 48 + 4 * 48]
    assert said[3:] == pytest.approx([peaks.min().item(), peaks.max().item(), 1 / 64], abs=6e-4)


def repository(peer, tmp_path, **options):
    timm = peer("timm.models")
    theirs = timm.create_model("test_vit", img_size=64, **options)
    for block in theirs.blocks:
        block.attn.qkv.weight.data.normal_(std=0.3)
    timm.save_for_hf(theirs, tmp_path / "vit", safe_serialization=True)
    return tmp_path / "vit"


@pytest.mark.parametrize("classes", [5, 0])
def test_a_loaded_model_is_shown_on_photos_and_on_ones_own(peer, tmp_path, spy, classes):
    path, panel, heads = repository(peer, tmp_path, num_classes=classes), explore_published(), spy("plot_heads")
    panel.load(path)
    loaded = load_pretrained(path)
    assert (panel.message.value, panel.controls["chosen"].value) == ("", ("cat",))
    panel.controls["chosen"].file.value = address(content := noise())
    for kind, image in (
        ("cat", photo("cat", 64)),
        ("astronaut", photo("astronaut", 64)),
        ("my own", load_image(content, 64)),
    ):
        panel.controls["chosen"].kind.value = kind
        with torch.no_grad(), record(loaded.model) as trace:
            logits = loaded.model(loaded.prepare(image))[0]
        (given, maps), options = heads[-1]
        torch.testing.assert_close(given, image)
        assert options["cols"] == len(trace.attention)
        expected = trace.attention[:, 0, :, 0, 1:].transpose(0, 1).flatten(0, 1)  # a row for each head
        torch.testing.assert_close(torch.stack([shown.flatten() for shown in maps]), expected)
        best, says = logits.softmax(-1).max().item(), "no classification head"
        assert (f"says: {loaded.class_names[logits.argmax()]} ({best:.1%})" if classes else says) in panel.text


def test_the_other_views_show_the_loaded_model(peer, tmp_path, spy):
    path, panel = repository(peer, tmp_path, num_classes=5), explore_published()
    panel.load(path)
    loaded = load_pretrained(path)
    calls = {name: spy(name) for name in ("plot_filters", "plot_similarity", "plot_dots")}
    for view in ("filters", "positions", "distances", "point at a patch"):
        panel.controls["view"].value = view
    with torch.no_grad(), record(loaded.model) as trace:
        loaded.model(loaded.prepare(photo("cat", 64)))
    assert len(calls["plot_filters"][0][0][0]) == 28
    assert calls["plot_similarity"][0][0][1:] == (4, 4)
    torch.testing.assert_close(calls["plot_similarity"][0][0][0].diagonal(), torch.ones(16))
    far = attention_distance(trace.attention, 4, 4, 16)
    assert list(calls["plot_dots"][0][0][0].values()) == [pytest.approx(row) for row in far.tolist()]
    shown = carried(panel.figure)
    assert shown["blocks"] == [1, 3, 5]
    torch.testing.assert_close(torch.tensor(shown["weights"]).float(), trace.attention[1::2, 0], rtol=0, atol=0.002)


def test_what_cannot_be_loaded_is_said_and_the_panel_goes_on(peer, tmp_path, monkeypatch):
    panel = explore_published()
    before = panel.picture.value
    for count, options in ((5, dict(reg_tokens=4)), (0, dict(class_token=False, global_pool="avg"))):
        panel.load(repository(peer, tmp_path, num_classes=5, **options))
        assert f"{count} tokens before its patches" in panel.message.value
    weights = repository(peer, tmp_path, num_classes=5) / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    panel.load(weights.parent)
    assert "cannot load" in panel.message.value
    for error in (ConnectionError("no network here"), ModuleNotFoundError("timm cannot be imported")):
        monkeypatch.setattr(published, "load_pretrained", lambda name, error=error: (_ for _ in ()).throw(error))
        panel.load("someone/vit")
        assert str(error) in panel.message.value
    assert panel.picture.value == before
    panel.controls["view"].value = "filters"
    assert panel.message.value == ""


@pytest.mark.network
@pytest.mark.parametrize("name", published.PUBLISHED.values())
def test_the_published_models_are_shown(name):
    panel = explore_published()
    panel.load(name)
    assert panel.message.value == ""
    for view in panel.controls["view"].options:
        panel.controls["view"].value = view
    assert numbers(panel.text, r"from (\d+) to (\d+) pixels")[0] < 80  # some heads of the first blocks look near
