"""checkpoint.py: what is saved comes back the same, is written whole or not at all, and what is broken is refused."""

import copy
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train.__main__ import COUNT, SETTINGS
from vit_walkthrough.train.loop import RECIPE, evaluate
from vit_walkthrough.weights import bundled, checkpoint, load_checkpoint, load_cued, load_tiny, save_checkpoint
from vit_walkthrough.weights.checkpoint import empty_model


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "vit.safetensors"


def write(path: Path, tensors: dict, **facts) -> None:
    save_file(tensors, path, metadata={name: json.dumps(fact) for name, fact in facts.items()})


@pytest.mark.parametrize(
    ("changes", "eps"),
    [({}, 1e-6), ({"positions": "sincos"}, 1e-2), ({"positions": "none", "pooling": "mean", "dropout": 0.25}, 1e-6)],
)
def test_a_checkpoint_brings_the_model_back(tmp_path, config, randomize, images, changes, eps):
    path = tmp_path / "new" / "folder" / "vit.safetensors"
    scores = {"test_accuracy": 0.9375, "steps": 6000, "note": "größer", "curve": [0.1, 0.25], "nothing": None}
    model = randomize(empty_model(replace(config, **changes), eps=eps).to_empty(device="cpu"))
    if "positions" in changes:
        model.position_embedding.load_state_dict(VisionTransformer(model.config).position_embedding.state_dict())
    save_checkpoint(path, model.train(), **scores)
    loaded, found = load_checkpoint(str(path))
    assert (found, loaded.config) == (scores, model.config)
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(loaded(images), model.eval()(images))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_eight_bits_keep_every_number_within_half_a_step_of_its_row(path, model):
    nn.init.zeros_(model.head.logits.weight[0].data)
    save_checkpoint(path, model)
    size = path.stat().st_size
    save_checkpoint(path, model, eight_bits=True, note="small")
    assert path.stat().st_size < size / 2  # this model's rows are short
    loaded, scores = load_checkpoint(path)
    assert scores == {"note": "small"}
    for name, tensor in model.state_dict().items():
        step = tensor.abs().amax(dim=-1, keepdim=True) / 127 if tensor.ndim > 1 else torch.zeros(())
        assert ((loaded.state_dict()[name] - tensor).abs() <= step / 2 + 1e-7).all()


def test_a_model_that_could_not_be_loaded_again_is_refused_before_anything_is_written(path, model):
    other = copy.deepcopy(model)
    other.head = nn.Linear(32, 2)
    nn.utils.parametrizations.weight_norm(model.blocks[0].mlp.expand)
    for wrong, named in ((other, r"head\.weight"), (model, "original0")):
        with pytest.raises(ValueError, match=named):
            save_checkpoint(path, wrong)
        assert not path.exists()


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, model, monkeypatch, error):
    save_checkpoint(path, model)
    before = path.read_bytes()

    def broken(tensors, new, metadata):
        assert Path(new).parent == path.parent  # os.replace is at once within one disk only
        Path(new).write_bytes(before[:100])
        assert path.read_bytes() == before
        raise error

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(type(error)):
        save_checkpoint(path, model, test_accuracy=1.0)
    with pytest.raises(TypeError, match="JSON"):
        save_checkpoint(path, model, test_accuracy=torch.tensor(1.0))
    assert [file.read_bytes() for file in path.parent.iterdir()] == [before]


def test_a_missing_a_truncated_checkpoint_and_what_is_none_are_refused(path, model):
    with pytest.raises(FileNotFoundError, match=r"vit\.safetensors"):
        load_checkpoint(path)
    save_checkpoint(path, model, test_accuracy=0.9375)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    lengths = (0, 7, 8, header - 1, header, header + 1, len(content) - 1)
    others = bytes(1000), pickle.dumps({"head.logits.weight": [1.0]}), b"<!DOCTYPE html><html>404</html>"
    for broken in (*(content[:length] for length in lengths), *others):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"^vit\.safetensors .*safetensors"):
            load_checkpoint(path)


@pytest.mark.usefixtures("unchecked")
def test_a_config_that_is_not_one_of_ours_is_refused(path, model):
    wrong = {"": None, "registers": {"registers": 4}, "dim": {"dim": "32"}, "patch_size 9": {"patch_size": 9}}
    for reason, facts in [("config", {}), *((reason, {"config": config}) for reason, config in wrong.items())]:
        write(path, model.state_dict(), **facts)
        with pytest.raises(ValueError, match=rf"^vit\.safetensors has no config .*{reason}"):
            load_checkpoint(path)


def test_weights_that_do_not_fit_are_named(path, model):
    def refused(state, **changes) -> str:
        write(path, state, config=asdict(replace(model.config, **changes)), scores={})
        with pytest.raises(ValueError, match=r"weights of vit\.safetensors") as caught:
            load_checkpoint(path)
        return str(caught.value)

    state = model.state_dict()
    assert "blocks.0.mlp.expand.weight: (48, 32), expected (64, 32); blocks.0.mlp" in refused(state, hidden=64)
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    assert "head.logits.weight: missing" in refused(headless)
    del state["norm.bias"]
    said = refused(state | {"extra": torch.rand(2, 3)})
    assert said.endswith("norm.bias: missing, expected (32,); extra: (2, 3), expected nothing")


def test_all_sixteen_were_trained_by_one_recipe_and_another_is_refused():
    assert list(bundled()) == [(patch_size, heads) for patch_size in (6, 8, 12, 16) for heads in (1, 2, 4, 8)]
    assert sum(path.stat().st_size for path in bundled().values()) <= 8_000_000
    accuracy = {}
    for (patch_size, heads), path in bundled().items():
        model, scores = load_checkpoint(path)
        assert model.config == ViTConfig(48, patch_size, dim=64, depth=4, heads=heads, hidden=128, classes=10)
        accuracy[patch_size, heads] = scores.pop("test_accuracy")
        assert 0.9 < scores.pop("validation_accuracy") <= 1
        assert scores == SETTINGS | dict(recipe=RECIPE, images=COUNT)
    assert max(accuracy.values()) >= 0.97
    assert all(value >= 0.93 for (patch_size, _), value in accuracy.items() if patch_size <= 12)
    # One measured anew, on the same 2,000 images; another processor may round one of them to the other side.
    measured = evaluate(load_tiny(12, 4), ClutteredDigits("test"), COUNT)
    assert measured == pytest.approx(accuracy[12, 4], abs=0.0021)
    with pytest.raises(FileNotFoundError, match="cue_s3"):
        load_cued(3)
    with pytest.raises(ValueError, match=r"\(7, 4\).* \(6, 1\), .*\(16, 8\)\. .*--patch-size 7 --heads 4"):
        load_tiny(7, 4)
