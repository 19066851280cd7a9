"""pretrained.py: what is saved comes back the same, is written whole or not at all, and what is broken is refused."""

import json
import pickle
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.loop import evaluate
from vit_walkthrough.weights import checkpoint
from vit_walkthrough.weights.checkpoint import (
    bundled,
    load_checkpoint,
    load_tiny,
    read_tensors,
    save_checkpoint,
    write_tensors,
)
from vit_walkthrough.weights.convert import empty_model


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "vit.safetensors"


@pytest.fixture
def saved(path, model) -> Path:
    save_checkpoint(path, model, test_accuracy=0.9375)
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """An empty folder in the place of the bundled checkpoints."""
    monkeypatch.setattr(checkpoint, "TINY", tmp_path / "checkpoints")
    checkpoint.TINY.mkdir()
    return checkpoint.TINY


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# --- there and back ----------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_the_model_back(path, model, images, config):
    scores = {"test_accuracy": 0.9375, "steps": 6000, "note": "größer", "curve": [0.1, 0.25], "nothing": None}
    save_checkpoint(path, model.train(), **scores)
    loaded, found = load_checkpoint(path)
    assert found == scores
    assert loaded.config == config
    assert loaded.config.image_size == (12, 20)
    assert isinstance(loaded.config.image_size, tuple)
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(loaded(images), model.eval()(images))
    state = model.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 20},
        {"positions": "sincos"},
        {"positions": "none", "pooling": "mean"},
        {"dropout": 0.25, "depth": 1, "channels": 1},
    ],
    ids=str,
)
def test_every_kind_of_config_comes_back(path, config, randomize, changes):
    model = randomize(VisionTransformer(replace(config, **changes)))
    save_checkpoint(path, model)
    loaded, scores = load_checkpoint(str(path))
    assert (loaded.config, scores) == (model.config, {})
    images = torch.rand(2, model.config.channels, model.config.height, model.config.width)
    assert torch.equal(loaded(images), model(images))


@pytest.mark.parametrize(
    "beyond", [{"eps": 1e-2}, {"head_hidden": 20}, {"headless": True}, {"headless": True, "head_hidden": 20}], ids=str
)
def test_what_a_converted_model_has_beyond_its_config_comes_back(path, config, randomize, images, beyond):
    model = empty_model(config, **beyond).to_empty(device="cpu")
    save_checkpoint(path, randomize(model).eval())
    loaded = load_checkpoint(path)[0]
    assert torch.equal(loaded(images), model(images))
    assert {module.eps for module in loaded.modules() if hasattr(module, "eps")} == {beyond.get("eps", 1e-6)}


def test_a_checkpoint_that_says_nothing_beyond_its_config_has_a_plain_head_and_the_usual_eps(path, model, images):
    write_tensors(path, model.state_dict(), config=asdict(model.config), scores={})
    assert torch.equal(load_checkpoint(path)[0](images), model(images))


def test_a_head_that_is_missing_is_not_taken_for_none(path, model):
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    write_tensors(path, state, config=asdict(model.config), scores={})
    with pytest.raises(ValueError, match=r"head\.logits\.weight: missing"):
        load_checkpoint(path)


def test_saving_changes_neither_the_model_nor_its_place(saved, model, path):
    assert files(path.parent) == ["vit.safetensors"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_checkpoint(saved)[0].head.logits.weight.data.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_tensors_and_facts_come_back(tmp_path):
    tensors = {
        "turned": torch.rand(3, 4).T,
        "whole": torch.arange(5),
        "single": torch.tensor(2.5),
        "half": torch.rand(2).half(),
        "learned": torch.nn.Parameter(torch.rand(2, 2)),
        "empty": torch.zeros(0, 3),
    }
    facts = {"step": 7, "loss": [2.302585092994046, 1e-9], "name": "a b", "deep": {"list": [1, {"x": None}]}}
    path = tmp_path / "new" / "folder" / "state.partial"
    write_tensors(path, tensors, **facts)
    back, known = read_tensors(path)
    assert known == facts
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)
    assert files(path.parent) == ["state.partial"]


def test_a_checkpoint_can_be_read_by_others(saved, config):
    """Its header is JSON: the length in 8 bytes, then names, shapes and our facts as strings."""
    content = saved.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["scores"]) == {"test_accuracy": 0.9375}
    assert json.loads(header["__metadata__"]["config"]) == asdict(config) | {"image_size": [12, 20]}
    assert header["head.logits.weight"]["shape"] == [5, 32]


# --- whole or not at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(saved, model, monkeypatch, error):
    before = saved.read_bytes()

    def broken(tensors, path, metadata):
        Path(path).write_bytes(before[:100])
        raise error

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(type(error)):
        save_checkpoint(saved, model, test_accuracy=1.0)
    assert saved.read_bytes() == before
    assert files(saved.parent) == [saved.name]


def test_at_no_time_is_half_a_file_under_its_name(saved, model, monkeypatch):
    before, real, seen = saved.read_bytes(), checkpoint.save_file, []

    def watched(tensors, path, metadata):
        real(tensors, path, metadata=metadata)
        seen.append((Path(path).parent == saved.parent, Path(path) != saved, saved.read_bytes() == before))

    monkeypatch.setattr(checkpoint, "save_file", watched)
    save_checkpoint(saved, model, test_accuracy=1.0)
    assert seen == [(True, True, True)]
    assert load_checkpoint(saved)[1] == {"test_accuracy": 1.0}
    assert files(saved.parent) == [saved.name]


def test_scores_that_json_cannot_say_leave_the_old_file(saved, model):
    before = saved.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(saved, model, test_accuracy=torch.tensor(1.0))
    assert saved.read_bytes() == before
    assert files(saved.parent) == [saved.name]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [load_checkpoint, read_tensors])
def test_a_missing_file_is_named(reader, tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^there is no checkpoint at {re.escape(str(path))}$"):
            reader(path)


def test_a_truncated_checkpoint_is_refused_wherever_it_was_cut(saved):
    content = saved.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"^vit\.safetensors is no whole safetensors checkpoint \("):
            load_checkpoint(saved)


def rubbish(length: int) -> bytes:
    return bytes(torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(length)).tolist())


@pytest.mark.parametrize(
    "content",
    [
        *[rubbish(length) for length in (3, 100, 10_000)],
        bytes(1000),
        b"\xff" * 1000,
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        pickle.dumps({"head.logits.weight": [1.0, 2.0]}),
        (2).to_bytes(8, "little") + b"[]",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_safetensors_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^vit\.safetensors is no whole safetensors checkpoint \("):
        load_checkpoint(path)


def test_a_checkpoint_of_torch_is_refused(path, model):
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match=r"^vit\.safetensors is no whole safetensors checkpoint \("):
        load_checkpoint(path)


def test_metadata_that_is_not_json_is_refused(path, model):
    save_file(model.state_dict(), path, metadata={"config": "{'single': 'quotes'}"})
    with pytest.raises(ValueError, match=r"^vit\.safetensors is no whole safetensors checkpoint \("):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"scores": "{}"}], ids=str)
def test_safetensors_without_a_config_are_refused(path, model, metadata):
    save_file(model.state_dict(), path, metadata=metadata)
    message = "vit.safetensors holds no config; save_checkpoint writes one beside the weights"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda known: known | {"registers": 4}, "registers"),
        (lambda known: known | {"dim": "32"}, "dim"),
        (lambda known: known | {"patch_size": 7}, "patch_size 7 does not divide"),
        (lambda known: known | {"heads": 0}, "heads is 0"),
        (lambda known: known | {"image_size": [12, 20, 3]}, "image_size"),
        (lambda known: [known], ""),
        (lambda known: None, ""),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_config_that_is_none_of_ours_is_refused(path, model, change, reason):
    write_tensors(path, model.state_dict(), config=change(asdict(model.config)), scores={})
    with pytest.raises(ValueError, match=rf"^the config of vit\.safetensors is none of ours \(.*{reason}"):
        load_checkpoint(path)


@pytest.mark.parametrize("beyond", [{"eps": 0}, {"eps": "small"}, {"head_hidden": -3}, {"registers": 4}, [1]], ids=str)
@pytest.mark.usefixtures("unchecked")
def test_what_no_model_has_beyond_its_config_is_refused(path, model, beyond):
    write_tensors(path, model.state_dict(), config=asdict(model.config), beyond=beyond, scores={})
    with pytest.raises(ValueError, match=r"^the config of vit\.safetensors is none of ours \("):
        load_checkpoint(path)


def test_weights_of_another_config_are_refused_and_named(path, model):
    write_tensors(path, model.state_dict(), config=asdict(replace(model.config, hidden=64)), scores={})
    message = (
        "the weights of vit.safetensors do not fit its config: "
        "blocks.0.mlp.expand.weight: (48, 32), expected (64, 32); blocks.0.mlp.expand.bias: (48,), expected (64,); "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_checkpoint(path)


def test_missing_and_superfluous_weights_are_named(path, model):
    state = model.state_dict()
    del state["norm.bias"]
    state["extra"] = torch.rand(2, 3)
    write_tensors(path, state, config=asdict(model.config), scores={})
    message = (
        "the weights of vit.safetensors do not fit its config: "
        "norm.bias: missing, expected (32,); extra: (2, 3), expected nothing"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_checkpoint(path)


def test_of_many_weights_that_do_not_fit_four_are_named(path, model):
    write_tensors(path, model.state_dict(), config=asdict(replace(model.config, dim=64)), scores={})
    with pytest.raises(ValueError, match="expected") as caught:
        load_checkpoint(path)
    assert str(caught.value).count("expected") == 4


# --- the tiny ones that come along -------------------------------------------------------------------------------


@pytest.fixture
def three(tiny):
    """(patch_size, heads): (6, 1), (6, 2) and (12, 4); the bias of each head's first class says which."""
    config = ViTConfig(24, 6, dim=8, depth=1, heads=1, hidden=8, classes=2)
    for patch_size, heads in [(12, 4), (6, 2), (6, 1)]:
        model = VisionTransformer(replace(config, patch_size=patch_size, heads=heads))
        model.head.logits.bias.data[0] = 100 * patch_size + heads
        save_checkpoint(tiny / f"tiny_p{patch_size}_h{heads}.safetensors", model)
    return tiny


def test_the_bundled_models_are_listed_in_order(three):
    assert list(bundled().items()) == [
        ((6, 1), three / "tiny_p6_h1.safetensors"),
        ((6, 2), three / "tiny_p6_h2.safetensors"),
        ((12, 4), three / "tiny_p12_h4.safetensors"),
    ]


def test_the_tiny_model_that_was_asked_for_is_loaded(three):
    for patch_size, heads in bundled():
        model = load_tiny(patch_size, heads)
        assert (model.config.patch_size, model.config.heads) == (patch_size, heads)
        assert model.head.logits.bias[0] == 100 * patch_size + heads
        assert not model.training


def test_other_files_in_the_folder_do_no_harm(three):
    known = bundled()
    for name in ("tiny_p8_h4.partial", "tiny_p8_h4 (copy).safetensors", "tiny_p8_hx.safetensors", "notes.txt"):
        (three / name).write_bytes(b"")
    assert bundled() == known


@pytest.mark.parametrize(("patch_size", "heads"), [(12, 1), (8, 4), (7, 3)])
def test_a_combination_that_is_missing_lists_those_there_are_and_how_to_train_it(three, patch_size, heads):
    message = (
        f"no tiny ViT with patch_size {patch_size} and heads {heads} comes along; there is "
        f"patch_size 6 with heads 1, 2; patch_size 12 with heads 4. "
        f"To train one: python -m vit_walkthrough.train --patch-size {patch_size} --heads {heads}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_tiny(patch_size, heads)


def test_a_folder_without_any_says_so(tiny):
    message = (
        f"no tiny ViT with patch_size 8 and heads 4 comes along; there is none in {tiny}. "
        "To train one: python -m vit_walkthrough.train --patch-size 8 --heads 4"
    )
    for _ in range(2):
        assert bundled() == {}
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            load_tiny()
        if tiny.exists():
            tiny.rmdir()


def test_a_bundled_file_that_is_broken_is_named(tiny):
    (tiny / "tiny_p8_h4.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"^tiny_p8_h4\.safetensors is no whole safetensors checkpoint"):
        load_tiny(8, 4)


# --- the sixteen that really come along --------------------------------------------------------------------------

SIXTEEN = [(patch_size, heads) for patch_size in (6, 8, 12, 16) for heads in (1, 2, 4, 8)]


def scores_of(path: Path) -> dict:
    return read_tensors(path)[1]["scores"]


def test_every_patch_size_comes_with_every_number_of_heads():
    assert list(bundled()) == SIXTEEN
    assert sum(path.stat().st_size for path in bundled().values()) <= 8_000_000


@pytest.mark.parametrize(("patch_size", "heads"), SIXTEEN)
def test_all_were_trained_by_one_recipe(patch_size, heads):
    model = load_tiny(patch_size, heads)
    assert model.config == ViTConfig(48, patch_size, dim=64, depth=4, heads=heads, hidden=128, classes=10)
    scores = scores_of(bundled()[patch_size, heads])
    recipe = {"steps": 4000, "batch": 64, "learning_rate": 3e-3, "seed": 0, "test_images": 2000}
    assert scores == recipe | {"test_accuracy": scores["test_accuracy"]}


def test_the_scores_they_carry_are_good():
    accuracy = {which: scores_of(path)["test_accuracy"] for which, path in bundled().items()}
    assert max(accuracy.values()) >= 0.97
    assert all(value >= 0.93 for (patch_size, _), value in accuracy.items() if patch_size <= 12)


@pytest.mark.parametrize(("patch_size", "heads"), [(12, 4), (16, 1)])
def test_the_scores_they_carry_are_what_they_get(patch_size, heads):
    """Measured anew, on the same 2,000 images; another processor may round one of them to the other side."""
    measured = evaluate(load_tiny(patch_size, heads), ClutteredDigits("test"), 2000)
    assert measured == pytest.approx(scores_of(bundled()[patch_size, heads])["test_accuracy"], abs=0.0021)
