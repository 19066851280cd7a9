"""How long a thing may take, on machines that are not always equally fast."""

import time
from statistics import median

from matplotlib.figure import Figure

from vit_walkthrough.draw.theme import render

YARDSTICK = 0.15  # seconds of processor time that `plain_figure` takes where the bounds were set


def plain_figure() -> None:
    """Four empty plots, as matplotlib makes them."""
    figure = Figure(figsize=(9, 3))
    for ax in figure.subplots(1, 4):
        ax.set_title("a yardstick")
    render(figure)


def processor_time(work) -> float:
    """Seconds of this process alone: what else the machine does is not its doing, or hardly."""
    start = time.process_time()
    work()
    return time.process_time() - start


def assert_at_most(seconds: float, work) -> None:
    """Twice in five attempts, `work` takes no longer than `seconds`; or as much longer as a plain figure takes just
    then than it does on a quiet machine."""
    spent, beside = [], []
    for _ in range(5):
        spent.append(processor_time(work))
        if sum(once <= seconds for once in spent) == 2:
            return
        beside.append(processor_time(plain_figure))
    slowness = max(1.0, median(beside) / YARDSTICK)
    assert median(spent) <= seconds * slowness, f"{spent} s, while a plain figure took {beside} s"
