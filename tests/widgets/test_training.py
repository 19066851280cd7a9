"""The panel in which a ViT is trained: what the button does, what is kept, what an interruption leaves."""

import re
from math import log

import pytest
import torch

from tests.widgets.panels import Page, numbers, turn
from vit_walkthrough import ViTConfig, data, record
from vit_walkthrough.train import Fitted, fit, init_model
from vit_walkthrough.widgets import train_and_look, training

SIZES = {"patch_size": 12, "heads": 2, "dim": 16, "depth": 1}
CONFIG = ViTConfig(48, 12, dim=16, depth=1, heads=2, hidden=32, classes=10)


def trainable(steps: int):
    """A panel at a size that is trained in no time."""
    panel = train_and_look(steps)
    turn(panel, **SIZES)
    return panel


def button_and_progress(panel) -> tuple:
    return panel.box.children[2].children


def progress_of(panel) -> tuple[int, int, str]:
    """Steps taken, steps in all, and what the text says of the accuracy."""
    found = re.search(r"parameters, ([\d,]+) of ([\d,]+) steps, (.+?)\. On these four", panel.text)
    return int(found[1].replace(",", "")), int(found[2].replace(",", "")), found[3]


def expected_fit(steps: int) -> Fitted:
    return fit(CONFIG, data.ClutteredDigits("train"), steps=steps, progress=False)


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


def test_opening_it_trains_nothing_and_shows_the_untrained_model(spy, fits):
    shown, curves, panel = spy("plot_maps"), spy("plot_curves"), trainable(7)
    button, progress = button_and_progress(panel)
    assert (fits, button.description, button.disabled, progress.value) == ([], "train", False, 0)
    assert progress_of(panel) == (0, 7, "not trained yet")
    model = init_model(CONFIG, data.ClutteredDigits("train")).eval()
    images, labels, masks = data.ClutteredDigits("test").sample(4, draw=0)
    with torch.no_grad(), record(model) as trace:
        said = model(images).argmax(-1).tolist()
    looks = trace.attention[0].mean(dim=1)[:, 0, 1:].reshape(4, 4, 4)
    (held, maps), more = shown[-1]
    torch.testing.assert_close(held, images)
    torch.testing.assert_close(maps["it looks"], looks)
    assert more["titles"] == [f"{label}: says {word}" for label, word in zip(labels.tolist(), said, strict=True)]
    pixels = looks.repeat_interleave(12, 1).repeat_interleave(12, 2)
    share = ((pixels * masks).sum((1, 2)) / pixels.sum((1, 2))).mean().item()
    found = numbers(panel.text, r"digits (\d+)% of .* square, (\d+)% of the picture")
    assert found == pytest.approx([100 * share, 100 * masks.float().mean().item()], abs=0.51)
    assert curves[-1][0][0]["loss"][1] == [log(10)]


def test_the_button_gives_the_model_that_fit_gives_whatever_is_drawn_meanwhile(fits, spy, capsys):
    panel, dice, seen, curves = trainable(3), torch.random.get_rng_state(), [], spy("plot_curves")
    button, progress = button_and_progress(panel)

    def disturb(change):
        seen.append((change.new, progress.max, button.disabled))
        panel.controls["picture"].value = 10 * change.new
        panel.controls["dim"].value = 32 if change.new == 2 else 16

    progress.observe(disturb, names="value")
    button.click()
    assert seen[:2] == [(1, 3, True), (2, 3, True)]
    assert (button.disabled, progress.value, panel.message.value) == (False, 0, "")
    assert progress_of(panel) == (3, 3, "43.2% of 500 test images right")
    expected, (fitted,) = expected_fit(3), fits
    assert list(curves[-1][0][0]["loss"][1]) == fitted.history.loss == expected.history.loss
    assert all(torch.equal(a, b) for a, b in zip(fitted.model.parameters(), expected.model.parameters(), strict=True))
    button.click()  # a second press does not train again
    assert (len(fits), torch.equal(torch.random.get_rng_state(), dice)) == (1, True)
    assert capsys.readouterr() == ("", "")


def test_what_was_trained_is_measured_kept_and_shown_again():
    panel, test, model = trainable(2), data.ClutteredDigits("test"), expected_fit(2).model
    panel.train()
    right, device = 0, next(model.parameters()).device
    for draw in (0, 1):
        images, labels, _ = test.sample(250, draw=draw)
        right += (model(images.to(device)).argmax(-1).cpu() == labels).sum().item()
    assert progress_of(panel) == (2, 2, f"{right / 5:.1f}% of 500 test images right")
    shown = panel.text, panel.picture.value
    for name, value in (("patch_size", 24), ("heads", 4), ("dim", 32), ("depth", 2), ("steps", 100)):
        turn(panel, **{name: value})
        assert progress_of(panel) == (0, panel.controls["steps"].value, "not trained yet"), name
        turn(panel, **{name: SIZES.get(name, 2)})
    assert (panel.text, panel.picture.value) == shown


@pytest.mark.parametrize("error", [ValueError("the <digits> are lost"), KeyboardInterrupt()])
@pytest.mark.parametrize(("step", "told"), [(0, "not trained yet"), (3, "not trained to the end")])
def test_an_error_is_raised_and_an_interruption_is_not_and_both_leave_the_model(fits, monkeypatch, error, step, told):
    def sample(self, count, draw=None):
        if (self.split, count, draw) == ("train", 128, step):
            raise error
        return real(self, count, draw)

    panel, real = trainable(5), data.ClutteredDigits.sample
    monkeypatch.setattr(data.ClutteredDigits, "sample", sample)
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="are lost"):
            panel.train()
        assert Page(panel.message.value).words == "the <digits> are lost"
    else:
        panel.train()
        assert panel.message.value == ""
        assert (len(fits[0].history.loss), fits[0].model.training) == (step, False)
    button, progress = button_and_progress(panel)
    assert (button.disabled, progress.value) == (False, 0)
    assert progress_of(panel) == (step, 5, told)


def test_whoever_interrupts_the_measuring_keeps_the_model_and_another_press_only_measures(fits, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    panel = trainable(2)
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            panel.train()
    assert (button_and_progress(panel)[0].disabled, progress_of(panel)) == (False, (2, 2, "not measured"))
    panel.train()
    assert (len(fits), progress_of(panel)) == (1, (2, 2, "43.2% of 500 test images right"))
