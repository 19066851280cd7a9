"""__main__.py: what the command writes."""

from pathlib import Path

import pytest
import torch

from vit_walkthrough.data import ClutteredDigits, PlantedCue
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train.__main__ import main
from vit_walkthrough.train.loop import RECIPE, evaluate, fit
from vit_walkthrough.weights.checkpoint import in_eight_bits, in_full, load_checkpoint

pytestmark = pytest.mark.usefixtures("on_the_processor")
SMALL = "--patch-size 24 --heads 2 --dim 8 --depth 1 --batch-size 8 --learning-rate 0.02".split()
CONFIG = ViTConfig(48, 24, dim=8, depth=1, heads=2, hidden=16, classes=10)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr("vit_walkthrough.train.__main__.COUNT", 200)


@pytest.mark.parametrize("cue", [None, 0.5])
def test_the_command_trains_as_fit_does_and_writes_a_checkpoint_of_8_bits_with_its_scores(tmp_path, cue):
    output = tmp_path / "new" / "tiny.safetensors"
    asked = ["--steps", "12", "--seed", "3", "--output", str(output)]
    main([*SMALL, *asked, *(["--cue", str(cue)] if cue else [])])
    assert [path.name for path in output.parent.iterdir()] == ["tiny.safetensors"]
    model, scores = load_checkpoint(output)
    assert model.config == CONFIG
    recipe = dict(steps=12, batch_size=8, learning_rate=0.02, seed=3)
    data = {
        split: PlantedCue(split, cue) if cue else ClutteredDigits(split) for split in ("train", "validation", "test")
    }
    measured = {f"{split}_accuracy": evaluate(model, data[split], 200) for split in ("validation", "test")}
    assert scores == recipe | measured | dict(recipe=RECIPE, images=200) | ({"cue": cue} if cue else {})
    fitted = fit(CONFIG, data["train"], **recipe, progress=False).model
    expected = in_full(in_eight_bits(fitted.state_dict()))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


WRONG = "--steps 0, --batch-size -5, --patch-size 7, --heads 3, --cue 2, --unknown 1"


@pytest.mark.parametrize("wrong", WRONG.split(", "))
def test_with_bad_arguments_nothing_is_written(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    Path("tiny.safetensors").write_bytes(b"old")
    with pytest.raises((ValueError, SystemExit)) as caught:
        main([*SMALL, "--steps", "2", "--output", "tiny.safetensors", *wrong.split()])
    assert caught.type is ValueError or caught.value.code == 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
