"""Controls, a picture that follows them, and a sentence that says what the picture shows."""

import base64
import gc
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from html import escape

import ipywidgets
import torch
from IPython.display import display

from vit_walkthrough.draw import render, side_by_side

# Only the page can tell that its kernel is gone: JupyterLab and Notebook 7 then mark the widgets of that kernel.
# An alert has a white ground of its own, because its red could not be read on the ground of a dark theme.
LOST = (
    "<style>.vit-alert {color: #a00000; background: white; font-weight: bold; max-width: 52em; line-height: 1.4} "
    ".vit-lost {display: none} .jupyter-widgets-disconnected .vit-lost {display: block}</style>"
    '<p class="vit-alert vit-lost" role="alert">The kernel behind these controls is gone. Run the notebook again from '
    "its first cell, and the controls answer again.</p>"
)

# A notebook takes keys before a slider or a menu sees them, unless the element with the focus carries this mark. A
# slider's handle also needs a name for screen readers. A slider makes new handles when its range changes, so all are
# marked again whenever a picture arrives.
KEYS = (
    "this.closest('.vit-panel')?.querySelectorAll('.noUi-handle,select,button,input').forEach((one) => {"
    " one.setAttribute('data-lm-suppress-shortcuts', 'true');"
    " const name = one.matches('.noUi-handle') && one.closest('.widget-slider')?.querySelector('.widget-label');"
    " if (name) one.setAttribute('aria-label', name.textContent); })"
)


class Panel:
    """Controls, a picture that follows them, and a sentence that says what the picture shows.

    draw: takes the controls' values by name; returns a Figure or Axes, and the sentence. hint: what to try and to
    notice. adapt: called with the controls before each drawing, to keep their limits valid.

    An error of `draw` is shown in the panel, above the last good picture, and raised again, so that a test sees it.
    """

    def __init__(self, draw: Callable, *, hint: str = "", adapt: Callable | None = None, **controls):
        self.draw, self.controls, self.adapt = draw, controls, adapt or (lambda controls: None)
        self.message, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        self._drawing, self._shown = False, None
        words = f'<p style="max-width:52em;line-height:1.4;margin:0">{escape(hint)}</p>' if hint else ""
        row = ipywidgets.HBox(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.box = ipywidgets.VBox([ipywidgets.HTML(words + LOST), row, self.message, self.picture])
        self.box.add_class("vit-panel")
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change=None) -> None:
        """Draw what the controls say now.

        A change that leaves them as they were last drawn draws nothing. A change during a drawing is drawn after it.
        """
        if self._drawing:
            return
        if change is None:
            self._shown = None
        self._drawing = True
        collecting, threads = gc.isenabled(), torch.get_num_threads()
        gc.disable()  # with torch in memory a garbage collection takes longer than the drawing
        torch.set_num_threads(1)  # enough for models this small; two threads on a busy machine wait for each other
        try:
            with self.tell():
                self.adapt(self.controls)
                while (chosen := self.chosen()) != self._shown:
                    self._shown = None  # if the drawing fails, the way back is drawn again
                    self._put(*self.draw(**chosen))
                    self._shown = chosen
                    self.adapt(self.controls)
            self.message.value = ""
        finally:
            self._drawing = False
            torch.set_num_threads(threads)
            if collecting:
                gc.enable()

    def _put(self, figure, text: str) -> None:
        png = base64.b64encode(render(figure, tight=False)).decode()
        self.figure, self.text = figure, text
        text = escape(text)
        self.picture.value = (
            '<div style="overflow-x:auto">'
            f'<img alt="{text}" src="data:image/png;base64,{png}" onload="{KEYS}" '
            'style="max-width:100%;min-width:560px;background:white"></div>'
            f'<p aria-live="polite" style="max-width:52em;line-height:1.4">{text}</p>'
        )

    def chosen(self) -> dict:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    @contextmanager
    def tell(self):
        """Show an error in the panel, and raise it."""
        try:
            yield
        except Exception as error:
            self.message.value = alert(error)
            raise

    def _ipython_display_(self) -> None:
        view = {"model_id": self.box.model_id, "version_major": 2, "version_minor": 0}
        png = base64.b64encode(render(self.figure, self.text, colours=256)).decode()
        bundle = {"application/vnd.jupyter.widget-view+json": view, "image/png": png, "text/plain": self.text}
        display(bundle, raw=True, metadata={"image/png": {"alt": self.text}})


def alert(error: Exception) -> str:
    """An error's words, for a widget to show."""
    words = escape(str(error) or type(error).__name__)
    return f'<p class="vit-alert" role="alert">{words}</p>'


def choice(description: str, options: Iterable, value) -> ipywidgets.SelectionSlider:
    """A slider over the allowed values."""
    named = dict(description=description, continuous_update=False)
    return ipywidgets.SelectionSlider(options=list(options), value=value, **named)


def number(description: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    """A slider over whole numbers."""
    return ipywidgets.IntSlider(value=value, min=low, max=high, description=description, continuous_update=False)


def menu(description: str, options: Iterable) -> ipywidgets.Dropdown:
    """A menu, which begins with the first option."""
    return ipywidgets.Dropdown(options=list(options), description=description)


def toggle(description: str, *options: str) -> ipywidgets.ToggleButtons:
    """A row of buttons of which one is pressed, at the start the first."""
    # Without this layout the label and the buttons come apart.
    layout = ipywidgets.Layout(width="max-content", display="flex", align_items="center", grid_gap="8px")
    style = {"button_width": "auto"}
    return ipywidgets.ToggleButtons(options=options, description=description, style=style, layout=layout)


def query_at(side: int) -> tuple[dict, Callable[[int], None]]:
    """Sliders for a patch's row and column on a square grid, at first in the middle; and a function that fits them to
    another grid: there they stay at the same place of the picture, and back on the old one at the same patch."""
    controls = {"row": number("row", side // 2, 0, side - 1), "col": number("column", side // 2, 0, side - 1)}
    places = {}

    def fit(side: int) -> None:
        for name, slider in controls.items():
            if slider.value != int(places.get(name, -1) * (slider.max + 1)):  # the reader has moved it
                places[name] = (slider.value + 0.5) / (slider.max + 1)
            slider.max, slider.value = side - 1, int(places[name] * side)

    return controls, fit


def axes_row(count: int, *, margins: tuple, **shape):
    """Axes side by side in one figure. margins: left, bottom, right and top of the row, and the gap between two."""
    axes = side_by_side(count, **shape)
    axes[0].figure.subplots_adjust(*margins)
    return axes


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 head, 4 heads."""
    return f"{count} {noun}{'s' * (count > 1)}"
