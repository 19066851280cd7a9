"""The panel over published ViTs, on files that timm writes here: what it shows, and what it refuses."""

import os

import pytest
import torch

from tests.widgets.panels import address, carried, noise, numbers
from vit_walkthrough import record
from vit_walkthrough.data import load_image, photo
from vit_walkthrough.look.explain import attention_distance
from vit_walkthrough.weights import load_pretrained
from vit_walkthrough.widgets import explore_published, published


def repository(peer, tmp_path, **options):
    """A folder that timm wrote, of a small ViT with these options."""
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
    for kind, image in (("cat", photo("cat", 64)), ("astronaut", photo("astronaut", 64)), ("my own", content)):
        panel.controls["chosen"].kind.value = kind
        image = load_image(image, 64)
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
