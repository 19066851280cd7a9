"""The panel in which a ViT is trained: what the button does, what is kept, what an interruption leaves."""

import re
import threading
from math import log

import pytest
import torch

from tests.widgets.panels import Page, numbers, turn
from vit_walkthrough import ViTConfig, data, record
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.train import evaluate, fit, init_model
from vit_walkthrough.widgets import train_and_look, training

SIZES = {"patch_size": 12, "heads": 2, "dim": 16, "depth": 1}
CONFIG = ViTConfig(48, 12, dim=16, depth=1, heads=2, hidden=32, classes=10)


def trainable(steps: int) -> tuple:
    """A panel of a small model, its button and its progress."""
    turn(panel := train_and_look(steps), **SIZES)
    return panel, *panel.knobs.children[-1].children[:2]


def progress_of(panel) -> tuple[int, str]:
    found = re.search(r"parameters, ([\d,]+) steps, (.+?)\. On these four", panel.text)
    return int(found[1].replace(",", "")), found[2]


@pytest.fixture
def fits(monkeypatch) -> list:
    """What came of each training; and no images are named to measure it, which takes longer than to train it."""
    fitted, real = [], training.fit

    def watched(config, digits, **more):
        assert digits.split == "train"
        fitted.append(real(config, digits, **more))
        return fitted[-1]

    monkeypatch.setattr(training, "fit", watched)
    monkeypatch.setattr(training, "evaluate", lambda model, digits, count: 0.432)
    return fitted


def test_the_panel_opens_on_a_run_that_is_given_and_goes_on():
    digits = data.ClutteredDigits("train")
    run = fit(ViTConfig(48, 8, dim=32, depth=2, heads=1, hidden=64, classes=10), digits, steps=3, progress=False)
    panel = train_and_look(run=run)
    assert panel.chosen() == {"patch_size": 8, "heads": 1, "dim": 32, "depth": 2, "steps": 500, "picture": 0}
    right = evaluate(run.model, data.ClutteredDigits("validation"), 500)
    assert progress_of(panel) == (3, f"{right:.1%} of 500 validation images right")
    assert panel.knobs.children[-1].children[0].description == "go on"


def test_opening_it_trains_nothing_and_shows_the_untrained_model(spy, fits):
    shown, curves, (panel, button, progress) = spy("plot_maps"), spy("plot_curves"), trainable(7)
    assert (fits, button.description, progress.value) == ([], "train", 0)
    assert progress_of(panel) == (0, "not measured yet")
    model = init_model(CONFIG, data.ClutteredDigits("train")).eval()
    images, labels, masks = data.ClutteredDigits("test").sample(4, draw=0)
    with torch.no_grad(), record(model) as trace:
        said = model(images).argmax(-1).tolist()
    looks = trace.attention[0].mean(dim=1)[:, 0, 1:]
    (held, maps), more = shown[-1]
    torch.testing.assert_close((held, maps["it looks"].flatten(1)), (images, looks))
    assert more["titles"] == [f"{label}: says {word}" for label, word in zip(labels.tolist(), said, strict=True)]
    found = numbers(panel.text, r"digits (\d+)% of .* square, (\d+)% of the picture")
    shares = mass_on_object(looks, masks).mean().item(), masks.float().mean().item()
    assert found == pytest.approx([100 * share for share in shares], abs=0.51)
    assert curves[-1][0][0]["loss"][1].tolist() == [log(10)]


def test_it_trains_what_fit_trains_whatever_is_drawn_meanwhile_and_goes_on_from_there(fits, spy, capsys):
    (panel, button, progress), dice, seen, curves = trainable(3), torch.random.get_rng_state(), [], spy("plot_curves")

    def disturb(change):
        seen.append((change.new, progress.max, button.description, panel.controls["dim"].disabled))
        panel.controls["picture"].value = 10 * change.new

    progress.observe(disturb, names="value")
    panel.train()
    assert seen[:2] == [(1, 3, "stop", True), (2, 3, "stop", True)]
    assert (button.description, progress.value, panel.controls["dim"].disabled) == ("go on", 0, False)
    assert (progress_of(panel), panel.message.value) == ((3, "43.2% of 500 validation images right"), "")
    expected, (fitted,) = fit(CONFIG, data.ClutteredDigits("train"), steps=3, progress=False), fits
    assert fitted.history.loss == expected.history.loss
    assert all(torch.equal(a, b) for a, b in zip(fitted.model.parameters(), expected.model.parameters(), strict=True))
    panel.train()
    longer = fit(expected.model, data.ClutteredDigits("train"), steps=3, progress=False)
    assert fits[1].history.loss == longer.history.loss
    assert (progress_of(panel)[0], len(curves[-1][0][0]["loss"][1])) == (6, 6)
    assert torch.equal(torch.random.get_rng_state(), dice)
    assert capsys.readouterr() == ("", "")


def test_the_button_trains_in_the_background_and_stops(fits, monkeypatch):
    (panel, button, progress), begun = trainable(1000), threading.Event()
    progress.observe(lambda change: begun.set(), names="value")
    panel.press(button)
    assert begun.wait(30)
    (running,) = [one for one in threading.enumerate() if one.name.endswith("(train)")]
    panel.press(button)
    running.join(30)
    assert (running.is_alive(), button.description) == (False, "go on")
    steps, told = progress_of(panel)
    assert (1 <= steps < 1000, told) == (True, "43.2% of 500 validation images right")


def test_what_was_trained_is_measured_kept_and_shown_again():
    panel, _, _ = trainable(2)
    panel.train()
    model = fit(CONFIG, data.ClutteredDigits("train"), steps=2, progress=False).model
    right = evaluate(model, data.ClutteredDigits("validation"), 500)
    assert progress_of(panel) == (2, f"{right:.1%} of 500 validation images right")
    shown = panel.text, panel.picture.value
    for name, value in (("patch_size", 24), ("heads", 4), ("dim", 32), ("depth", 2)):
        turn(panel, **{name: value})
        assert progress_of(panel)[0] == 0, name
        assert panel.figure.figure.axes[0].lines[-2].get_color() == "#bbbbbb"  # what was trained before, in grey
        turn(panel, **{name: SIZES[name]})
    assert (panel.text, panel.picture.value) == shown


@pytest.mark.parametrize("error", [ValueError("the <digits> are lost"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", [0, 3])
def test_an_error_is_raised_and_an_interruption_is_not_and_both_leave_the_model(fits, monkeypatch, error, step):
    def sample(self, count, draw=None):
        if (self.split, count, draw) == ("train", 128, step):
            raise error
        return real(self, count, draw)

    (panel, button, progress), real = trainable(5), data.ClutteredDigits.sample
    monkeypatch.setattr(data.ClutteredDigits, "sample", sample)
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="are lost"):
            panel.train()
        assert Page(panel.message.value).words == "the <digits> are lost"
    else:
        panel.train()
        assert panel.message.value == ""
        assert (len(fits[0].history.loss), fits[0].model.training) == (step, False)
    assert (button.description, progress.value, progress_of(panel)[0]) == ("go on", 0, step)
