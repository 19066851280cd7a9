"""The panel in which the reader trains a ViT by pressing a button."""

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
from vit_walkthrough.widgets.panel import Panel, axes_row, choice, number
from vit_walkthrough.widgets.pictures import TINY_SIZE, unseen_digits


def train_and_look(steps: int = 300) -> Panel:
    """Choose the sizes of a ViT, press the button, and watch it learn: its loss, and where it looks on digits that it
    has never seen. A trained model is kept, and shown again when its sizes are chosen again. Interrupting the kernel
    ends a training early; the model so far is kept too."""
    digits = data.ClutteredDigits("train")
    trained: dict[tuple, Fitted] = {}
    accuracy: dict[tuple, float] = {}

    @lru_cache(maxsize=16)
    def untrained(patch_size: int, heads: int, dim: int, depth: int) -> Fitted:
        config = ViTConfig(TINY_SIZE, patch_size, dim=dim, depth=depth, heads=heads, hidden=2 * dim, classes=10)
        return Fitted(init_model(config, digits).eval(), History())

    def show(picture: int, steps: int, **sizes):
        key = (steps, *sizes.values())
        model, history = trained.get(key) or untrained(**sizes)
        images, labels, masks = unseen_digits().sample(4, draw=picture)
        device = next(model.parameters()).device
        probabilities, attention = (tensor.cpu() for tensor in answer(model, images.to(device)))
        seen, done = attention[-1, :, :, 0, 1:].mean(dim=1), len(history.loss)
        maps = rearrange(seen, "batch (rows cols) -> batch rows cols", rows=TINY_SIZE // sizes["patch_size"])
        left, right = axes_row(2, width=9, height=3.2, margins=(0.06, 0.18, 0.99, 0.88, 0.12), ratios=(1, 1.3))
        width = max(1, done // 30)  # of the running mean
        curve = np.convolve(history.loss, np.ones(width) / width, "valid") if done else [log(10)]
        draw.plot_curves({"loss": (np.arange(len(curve)) + done - len(curve), curve)}, xlabel="steps", ax=left)
        left.axhline(log(10), color="#999999", lw=1, ls=":")
        left.set(xlim=(0, steps), ylim=(0, 2.6), title="loss")
        titles = [f"{label}: says {word}" for label, word in zip(labels, probabilities.argmax(-1), strict=True)]
        draw.plot_maps(images, {"it looks": maps}, masks=masks, titles=titles, ax=right)
        how = "not measured" if done == steps else "not trained to the end" if done else "not trained yet"
        how = f"{accuracy[key]:.1%} of 500 test images right" if key in accuracy else how
        return left, (
            f"{count_parameters(model):,} parameters, {done:,} of {steps:,} steps, {how}. On these four digits "
            f"{mass_on_object(seen, masks).mean():.0%} of what the class token gives to patches in the last block goes "
            f"to the digit's square, {masks.float().mean():.0%} of the picture. The dotted line is the loss of not "
            "knowing, ln 10."
        )

    panel = Panel(
        show,
        patch_size=choice("patch size", [6, 8, 12, 16, 24], 12),
        heads=choice("heads", [1, 2, 4, 8], 4),
        dim=choice("dim", [16, 32, 64, 96], 64),
        depth=number("depth", 4, 1, 8),
        steps=choice("steps", sorted({100, 300, 1000, 2000, 4000, steps}), steps),
        picture=number("pictures", 0, 0, 99),
        hint="Try: press train. Then one head instead of four, or one block instead of four, and train again. To stop "
        "early, interrupt the kernel: the model so far is kept. Notice: how long the loss stays on the dotted line, "
        "and whether the maps find the digit before the answers become right.",
    )
    button = ipywidgets.Button(description="train", button_style="primary")
    progress = ipywidgets.IntProgress(min=0, max=1, layout=ipywidgets.Layout(width="24em"))

    def train(_=None) -> None:
        chosen = panel.chosen()
        steps, _ = chosen.pop("steps"), chosen.pop("picture")
        key, config = (steps, *chosen.values()), untrained(**chosen).model.config

        def watch(step: int, model: VisionTransformer, history: History) -> None:
            progress.value = step
            if step % max(1, steps // 10) == 0:
                trained[key] = Fitted(model, history)
                panel.update()

        if key in accuracy:  # a second press waited while the first one trained
            return
        progress.max, button.disabled = steps, True
        try:
            with panel.tell():
                if key not in trained or len(trained[key].history.loss) < steps:
                    trained[key] = fit(config, digits, steps=steps, watch=watch, progress=False)
                try:
                    if len(trained[key].history.loss) == steps:
                        accuracy[key] = evaluate(trained[key].model, unseen_digits(), 500)
                finally:  # whoever interrupts the measuring still has the model
                    panel.update()
        finally:
            progress.value, button.disabled = 0, False

    button.on_click(train)
    panel.train = train
    hint, row, *rest = panel.box.children
    panel.box.children = (hint, row, ipywidgets.HBox([button, progress]), *rest)
    return panel
