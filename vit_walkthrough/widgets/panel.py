"""Controls, a picture that follows them, and a sentence that says what the picture shows."""

import base64
import gc
import io
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from vit_walkthrough.draw import render, side_by_side
from vit_walkthrough.draw.theme import style
from vit_walkthrough.living.page import Living

HERE = Path(__file__).parent
LOST = (
    f"<style>{(HERE / 'panel.css').read_text(encoding='utf-8')}</style>"
    '<p class="vit-alert vit-lost" role="alert">The kernel behind these controls is gone. Run the notebook again from '
    "its first cell, and the controls answer again.</p>"
)
ARRIVED = f"({escape((HERE / 'arrived.js').read_text(encoding='utf-8'))})(this)"
NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="  # one transparent pixel


class Panel:
    """Controls, a picture that follows them, and a sentence that says what the picture shows.

    draw: takes the controls' values by name; returns a Figure, Axes or a living picture, and the sentence. hint: what
    to try and to notice. groups: a heading for each control that begins a group.

    An error of `draw` is shown in the panel, above the last good picture, and raised again, so that a test sees it.
    """

    def __init__(self, draw: Callable, *, hint: str = "", groups: Mapping[str, str] = {}, **controls):
        self.draw, self.controls = draw, controls
        self.message, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        self._drawing, self._shown, self._one_at_a_time = False, None, threading.RLock()
        words = f"<p>{escape(hint)}</p>" if hint else ""
        columns: list[list] = []
        for name, control in controls.items():
            if name in groups or not columns:
                columns.append([ipywidgets.HTML(f"<b>{groups.get(name, '')}</b>")])
            columns[-1].append(control)
        self.knobs = ipywidgets.HBox([ipywidgets.VBox(column) for column in columns])
        for group in self.knobs.children:
            group.add_class("vit-group")
        both = ipywidgets.Box([self.knobs, ipywidgets.VBox([self.message, self.picture])])
        self.knobs.add_class("vit-knobs")
        both.add_class("vit-both")
        self.box = ipywidgets.VBox([ipywidgets.HTML(words + LOST), both])
        self.box.add_class("vit-panel")
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change=None) -> None:
        """Draw what the controls say now. A change that leaves them as they were last drawn draws nothing. A change
        during a drawing is drawn after it."""
        with self._one_at_a_time:  # a training draws from a thread of its own
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
                    while (chosen := self.chosen()) != self._shown:
                        self._shown = None  # if the drawing fails, the way back is drawn again
                        self._put(*self.draw(**chosen))
                        self._shown = chosen
                self.message.value = ""
            finally:
                self._drawing = False
                torch.set_num_threads(threads)
                if collecting:
                    gc.enable()

    def _put(self, figure, text: str) -> None:
        words = escape(text)
        if isinstance(figure, Living):
            shown = figure.around(f'<img class="vit-still" alt="" src="{NOTHING}" onload="{ARRIVED}">')
        else:
            jpeg = base64.b64encode(at_once(figure)).decode()
            image = f'<img alt="{words}" src="data:image/jpeg;base64,{jpeg}" onload="{ARRIVED}"'
            shown = f'{image} style="max-width:100%;background:white">'
        self.figure, self.text = figure, text
        self.picture.value = f'<div>{shown}</div><p aria-live="polite">{words}</p>'

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
        still = self.figure.still() if isinstance(self.figure, Living) else self.figure
        png = base64.b64encode(render(still, self.text, colours=256)).decode()
        bundle = {"application/vnd.jupyter.widget-view+json": view, "image/png": png, "text/plain": self.text}
        display(bundle, raw=True, metadata={"image/png": {"alt": self.text}})


@style()
def at_once(figure) -> bytes:
    """A figure or Axes as the bytes of a JPEG. To pack a PNG took a third of the time from a change to its picture."""
    canvas, buffer = FigureCanvasAgg(getattr(figure, "figure", figure)), io.BytesIO()
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def alert(error: Exception) -> str:
    """An error's words, for a widget to show."""
    words = escape(str(error) or type(error).__name__)
    return f'<p class="vit-alert" role="alert">{words}</p>'


def choice(description: str, options: Iterable, value) -> ipywidgets.SelectionSlider:
    """A slider over the allowed values."""
    return ipywidgets.SelectionSlider(options=list(options), value=value, description=description)


def number(description: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    """A slider over whole numbers."""
    return ipywidgets.IntSlider(value=value, min=low, max=high, description=description)


def toggle(description: str, *options: str) -> ipywidgets.ToggleButtons:
    """A row of buttons of which one is pressed, at the start the first."""
    return ipywidgets.ToggleButtons(options=options, description=description, style={"button_width": "auto"})


def axes_row(count: int, *, margins: tuple, bare: slice = slice(None), **shape):
    """Axes side by side in one figure. margins: left, bottom, right and top of the row, and the gap between two. bare:
    those that show pictures. To draw the ticks of the others takes longest, so there are few."""
    axes = side_by_side(count, **shape)
    axes[0].figure.subplots_adjust(*margins)
    for ax in axes:
        ax.locator_params(nbins=3)
    for ax in axes[bare]:
        ax.set_axis_off()
    return axes


def emptied(axes):
    """The same Axes without what was drawn into them: to make new ones takes as long as to draw a picture."""
    for ax in axes:
        for artist in (*ax.images, *ax.lines, *ax.collections, *ax.patches, *ax.texts):
            artist.remove()
    return axes


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 head, 4 heads."""
    return f"{count} {noun}{'s' * (count > 1)}"
