"""Every panel is driven to both ends and to every option of every control: what must hold for all of them."""

import base64
import io
import itertools
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from tests.widgets.panels import PANELS, Page, address, count_draws, ends, leaves, noise
from vit_walkthrough import widgets
from vit_walkthrough.widgets import panel as panel_module


def opened(name: str) -> widgets.Panel:
    """A panel in which every control has something to change."""
    panel = PANELS[name]()
    if chooser := panel.controls.get("chosen"):
        chooser.kind.value = "my own"
        chooser.file.value = address(noise())
        chooser.kind.value = "digit"
    return panel


def random_states() -> tuple:
    return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.fixture(scope="module", params=PANELS)
def journey(request):
    """A panel at its start, after every turn and back again; and what it did beside."""
    printed, before, words, stops, real = io.StringIO(), random_states(), [], [], Text.draw

    def draw_text(text, renderer):
        if text.get_visible() and text.get_text().strip():
            page = text.get_figure().bbox.frozen()
            words.append((text.get_text(), text.get_size(), text.get_window_extent(renderer), page))
        real(text, renderer)

    def stop(turned) -> None:
        html, kept = panel.picture.value, dict(draws=draws.copy(), words=words.copy(), text=panel.text)
        stops.append(SimpleNamespace(turned=turned, values=panel.chosen(), page=Page(html), html=html, **kept))
        assert panel.message.value == ""
        draws.clear()
        words.clear()

    with redirect_stdout(printed), redirect_stderr(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw_text)
        panel = opened(request.param)
        start, draws = {name: control.value for name, control in leaves(panel).items()}, count_draws(panel)
        words.clear()
        panel.update()
        stop(None)
        for name, control in reversed(leaves(panel).items()):  # the last first: they are the cheaper ones
            for value in ends(control):
                if control.value != value and not control.disabled:
                    control.value = value
                    stop((name, value))
        for name, value in start.items():
            leaves(panel)[name].value = value
    return SimpleNamespace(panel=panel, stops=stops, printed=printed.getvalue(), untouched=before == random_states())


def test_every_turn_draws_once_another_picture_of_what_the_controls_say(journey):
    assert {stop.turned[0] for stop in journey.stops[1:]} == set(leaves(journey.panel))
    for before, stop in itertools.pairwise(journey.stops):
        assert stop.draws == [stop.values], stop.turned
        assert stop.html != before.html, stop.turned
        lives = "script" in stop.page.tags
        assert stop.page.tags == ["div", *("div style img script script" if lives else "img").split(), "p"]
        assert stop.page.words.endswith(stop.text)
        assert lives or stop.page.attributes["img"]["alt"] == stop.text
        assert "nan" not in stop.text
    assert journey.panel.picture.value == journey.stops[0].html  # the way back leads to the same picture
    assert (journey.untouched, journey.printed) == (True, "")


def test_no_label_is_cut_off_covered_or_too_small_to_read(journey):
    for stop in journey.stops:
        for word, size, box, page in stop.words:
            assert size >= 8, (stop.turned, word)
            assert page.x0 <= box.x0 <= box.x1 <= page.x1, (stop.turned, word)
            assert page.y0 <= box.y0 <= box.y1 <= page.y1, (stop.turned, word)
        for (one, _, box, _), (other, _, place, _) in itertools.combinations(stop.words, 2):
            assert not box.padded(-1).overlaps(place.padded(-1)), (stop.turned, one, other)


def test_every_control_has_a_name_of_its_own_and_the_picture_follows_it(journey):
    controls = leaves(journey.panel).values()
    assert len({control.description for control in controls} - {""}) == len(controls)
    waiting = {control.description for control in controls if not getattr(control, "continuous_update", True)}
    trains = hasattr(journey.panel, "train")  # there a new size is a new model
    assert waiting == ({"patch size", "heads", "dim", "depth", "steps"} if trains else set())


def test_a_panel_is_displayed_once_with_a_still_picture_and_its_text(journey, monkeypatch):
    panel, calls = journey.panel, []
    monkeypatch.setattr(panel_module, "display", lambda *args, **options: calls.append((args, options)))
    panel._ipython_display_()
    (((bundle,), options),) = calls
    view = bundle.pop("application/vnd.jupyter.widget-view+json")
    assert view == {"model_id": panel.box.model_id, "version_major": 2, "version_minor": 0}
    assert bundle.keys() == {"image/png", "text/plain"}
    assert bundle["text/plain"] == panel.text
    assert options == {"raw": True, "metadata": {"image/png": {"alt": panel.text}}}
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"], validate=True)))
    assert still.convert("RGBA").getextrema()[3] == (255, 255)
    assert still.width >= 500
