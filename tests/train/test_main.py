"""__main__.py: what the command writes, and how it continues after an interruption."""

import re
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


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr("vit_walkthrough.train.__main__.COUNT", 200)


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"^step \d+: loss (\d\.\d{6})", printed, flags=re.M)]


def assert_same_checkpoint(one: Path, other: Path, atol: float = 0) -> None:
    (ours, our_scores), (theirs, their_scores) = load_checkpoint(one), load_checkpoint(other)
    assert our_scores == pytest.approx(their_scores, abs=10 * atol)
    for name, tensor in ours.state_dict().items():
        if atol == 0 or not name.endswith("qkv.bias"):  # the bias of the keys has a gradient of rounding errors
            torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=atol)


def test_the_command_trains_as_fit_does_and_writes_a_checkpoint_of_8_bits_with_its_scores(tmp_path, capsys):
    output = tmp_path / "new" / "tiny.safetensors"
    main([*SMALL, "--steps", "12", "--seed", "3", "--output", str(output)])
    assert [path.name for path in output.parent.iterdir()] == ["tiny.safetensors"]
    model, scores = load_checkpoint(output)
    assert model.config == ViTConfig(48, 24, dim=8, depth=1, heads=2, hidden=16, classes=10)
    recipe = dict(steps=12, batch_size=8, learning_rate=0.02, seed=3)
    measured = {f"{split}_accuracy": evaluate(model, ClutteredDigits(split), 200) for split in ("validation", "test")}
    assert scores == recipe | measured | dict(recipe=RECIPE, images=200)

    fitted, history = fit(model.config, ClutteredDigits("train"), **recipe, progress=False)
    expected = in_full(in_eight_bits(fitted.state_dict()))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    out, err = capsys.readouterr()
    assert (losses(out), err) == (pytest.approx(history.loss[:10], abs=1e-5), "")


def test_with_a_cue_it_trains_and_measures_on_planted_images(tmp_path, capsys):
    output, recipe = tmp_path / "cued.safetensors", dict(steps=4, batch_size=8, learning_rate=0.02)
    main([*SMALL, "--steps", "4", "--cue", "0.5", "--output", str(output)])
    model, scores = load_checkpoint(output)
    assert (scores["cue"], scores["test_accuracy"]) == (0.5, evaluate(model, PlantedCue("test", share=0.5), 200))
    _, history = fit(model.config, PlantedCue("train", share=0.5), **recipe, progress=False)
    assert losses(capsys.readouterr().out) == pytest.approx(history.loss, abs=1e-5)


@pytest.mark.parametrize(("stop", "first"), [(3, 0), (9, 8)])
def test_an_interrupted_command_continues_and_ends_the_same(tmp_path, monkeypatch, stop, first):
    output, whole, state = tmp_path / "tiny.safetensors", tmp_path / "whole.safetensors", tmp_path / "tiny.partial"
    arguments = [*SMALL, "--steps", "11", "--save-every", "4"]
    main([*arguments, "--output", str(whole)])
    sample, stops, drawn = ClutteredDigits.sample, [stop], []

    def interrupted(self, count, draw):
        if count == 8:
            drawn.append(draw)
            if draw in stops:
                raise KeyboardInterrupt
        return sample(self, count, draw)

    monkeypatch.setattr(ClutteredDigits, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([*arguments, "--output", str(output)])
    assert [path.name for path in state.glob("*")] == ([str(first)] if first else [])
    (state / "unfinished").mkdir(parents=True)  # as if the power had failed while the run was saved
    for other in ("--seed", "--depth") if first else ():
        with pytest.raises(ValueError, match="another run"):
            main([*arguments, other, "2", "--output", str(output)])
    stops.clear()
    drawn.clear()
    main([*arguments, "--output", str(output)])
    assert drawn == list(range(first, 11))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors", "whole.safetensors"]
    assert_same_checkpoint(output, whole)


WRONG = "--steps 0, --batch-size -5, --save-every 0, --patch-size 7, --heads 3, --cue 2, --output tiny.txt"
WRONG += "--unknown 1, --output tiny.txt, --output tiny"


@pytest.mark.parametrize("wrong", WRONG.split(", "))
def test_with_bad_arguments_nothing_is_written(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    Path("tiny.safetensors").write_bytes(b"old")
    with pytest.raises((ValueError, SystemExit)) as caught:
        main([*SMALL, "--steps", "2", "--output", "tiny.safetensors", *wrong.split()])
    assert caught.type is ValueError or caught.value.code == 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
