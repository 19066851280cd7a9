"""The panel in which the reader trains a ViT by pressing a button."""

import threading
from copy import deepcopy
from functools import lru_cache
from math import log

import ipywidgets
import numpy as np
from einops import rearrange

from vit_walkthrough import data, draw
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train import Fitted, History, evaluate, fit, init_model
from vit_walkthrough.widgets.models import answer
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, emptied, number
from vit_walkthrough.widgets.pictures import TINY_SIZE, unseen_digits


def train_and_look(steps: int = 500, run: Fitted | None = None) -> Panel:
    """Choose the sizes of a ViT, press train, and watch it learn: its loss, and where it looks on digits that it has
    never seen. It trains in the background; the same button stops it, and goes on. A trained model is kept, and shown
    again when its sizes are chosen again. run: what `fit` has given for digits; the panel opens on it, and goes on."""
    digits, validation = data.ClutteredDigits("train"), data.ClutteredDigits("validation")
    trained: dict[tuple, Fitted] = {}
    accuracy: dict[tuple, float] = {}
    stop = threading.Event()
    first = (12, 4, 64, 4)
    if run:
        config = run.model.config
        first = (config.patch_size, config.heads, config.dim, config.depth)
        trained[first], accuracy[first] = run, evaluate(run.model, validation, 500)
    shape = dict(width=9, height=3.2, margins=(0.06, 0.18, 0.99, 0.88, 0.12), ratios=(1, 1.3))
    axes = axes_row(2, bare=slice(1, 2), **shape)

    @lru_cache(maxsize=16)
    def untrained(patch_size: int, heads: int, dim: int, depth: int) -> Fitted:
        config = ViTConfig(TINY_SIZE, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)
        return Fitted(init_model(config, digits).eval(), History())

    def smooth(losses: list[float]) -> tuple[np.ndarray, np.ndarray]:
        width = max(1, len(losses) // 30)  # of the running mean
        curve = np.convolve(losses, np.ones(width) / width, "valid")
        return np.arange(len(curve)) + len(losses) - len(curve), curve

    def show(picture: int, steps: int, **sizes):
        key = tuple(sizes.values())
        model, history = trained.get(key) or untrained(**sizes)
        images, labels, masks = unseen_digits().sample(4, draw=picture)
        trace = answer(model, images.to(next(model.parameters()).device))
        seen, said = trace.attention[-1, :, :, 0, 1:].mean(dim=1).cpu(), trace["output"].argmax(-1).tolist()
        maps = rearrange(seen, "batch (rows cols) -> batch rows cols", rows=TINY_SIZE // sizes["patch_size"])
        left, right = emptied(axes)
        draw.plot_curves({"loss": smooth(history.loss or [log(10)])}, xlabel="steps", ax=left)
        for other, (_, before) in trained.items():
            if other != key:
                left.plot(*smooth(before.loss), color="#bbbbbb", lw=1, zorder=0)
        left.axhline(log(10), color="#999999", lw=1, ls=":")
        done = len(history.loss)
        left.set(xlim=(0, max(steps, *(len(run.loss) for _, run in trained.values()), done)), ylim=(0, 2.6))
        how = f"{accuracy[key]:.1%} of 500 validation images right" if key in accuracy else "not measured yet"
        left.set_title(how.replace("of 500 validation images ", "") if done else "not trained yet", fontsize=15)
        titles = [f"{label}: says {word}" for label, word in zip(labels.tolist(), said, strict=True)]
        draw.plot_maps(images, {"it looks": maps}, masks=masks, titles=titles, ax=right)
        return left, (
            f"{count_parameters(model):,} parameters, {done:,} steps, {how}. On these four digits "
            f"{mass_on_object(seen, masks).mean():.0%} of what the class token gives to patches in the last block goes "
            f"to the digit's square, {masks.float().mean():.0%} of the picture. The dotted line is the loss of not "
            "knowing, ln 10. Grey lines are other sizes that you have trained."
        )

    panel = Panel(
        show,
        patch_size=choice("patch size", [6, 8, 12, 16, 24], first[0]),
        heads=choice("heads", [1, 2, 4, 8], first[1]),
        dim=choice("dim", [16, 32, 64, 96], first[2]),
        depth=number("depth", first[3], 1, 8),
        steps=choice("steps", sorted({100, 300, 500, 1000, 2000, steps}), steps),
        picture=number("pictures", 0, 0, 99),
        groups={"patch_size": "Model", "steps": "Training", "picture": "Look"},
        hint="Press train. Then try one head instead of four, or one block instead of four, and train again. Notice "
        "how long the loss stays on the dotted line, and whether the maps find the digit before the answers are right.",
    )
    sizes = [panel.controls[name] for name in ("patch_size", "heads", "dim", "depth", "steps")]
    button = ipywidgets.Button(description="train", button_style="primary")
    progress = ipywidgets.IntProgress(min=0, max=1, layout=ipywidgets.Layout(width="24em"))
    reason = ipywidgets.HTML()

    def named(running: bool) -> None:
        """Say on the button what it does, and let go of the sizes while they cannot be changed."""
        known = tuple(panel.chosen()[name] for name in ("patch_size", "heads", "dim", "depth")) in trained
        button.description = "stop" if running else "go on" if known else "train"
        reason.value = "Sizes can be changed when the training has ended." if running else ""
        for control in sizes:
            control.disabled = running

    def train() -> None:
        """Train what is chosen, from where it is. An interruption, or the button, ends it early."""
        chosen = panel.chosen()
        steps, _ = chosen.pop("steps"), chosen.pop("picture")
        key, (start, before) = tuple(chosen.values()), trained.get(tuple(chosen.values())) or untrained(**chosen)
        model = deepcopy(start) if key in trained else start.config

        def watch(step: int, model: VisionTransformer, history: History) -> None:
            if stop.is_set():
                raise KeyboardInterrupt  # which `fit` takes as the end
            progress.value = step
            if step % max(1, steps // 20) == 0:
                keep(model, history)

        def keep(model: VisionTransformer, history: History) -> None:
            """Show a copy: while its own weights change, and its modules are watched, nothing can be read from it."""
            losses, rights = before.loss + history.loss, before.accuracy + history.accuracy
            trained[key] = Fitted(deepcopy(model).eval(), History(losses, rights))
            panel.update()

        progress.max = steps
        named(running=True)
        accuracy.pop(key, None)
        try:
            with panel.tell():
                keep(*fit(model, digits, steps=steps, watch=watch, progress=False))
                accuracy[key] = evaluate(trained[key].model, validation, 500)
                panel.update()
        finally:
            progress.value = 0
            stop.clear()
            named(running=False)

    def press(_) -> None:
        if button.description == "stop":
            stop.set()
        else:
            named(running=True)  # at once: a second press stops, and does not train twice
            threading.Thread(target=train, daemon=True).start()

    button.on_click(press)
    for control in sizes:
        control.continuous_update = False  # a new model for each place that a handle passes would be too many
        control.observe(lambda change: named(running=button.description == "stop"), names="value")
    panel.train, panel.press = train, press
    named(running=False)
    panel.knobs.children = (*panel.knobs.children, ipywidgets.VBox([button, progress, reason]))
    return panel
