"""What one choice is worth: results of trainings with one thing changed, and when they show an effect.

arms.py says what was changed in BASE, and `python -m notebooks.experiments` measures anew.
"""

import copy
import json
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vit_walkthrough.model.attention import MultiHeadSelfAttention
from vit_walkthrough.model.config import ViTConfig

RESULTS = Path(__file__).with_name("results.json")
SEEDS = (0, 1, 2)
BASE = ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)


def multiply_adds(model: nn.Module) -> int:
    """Multiplications, each with its addition, that the model needs for one image of BASE's size."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, MultiHeadSelfAttention):
            module.fused = False  # torch does not count what the fused kernel does
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, BASE.channels, BASE.height, BASE.width))
    return counter.get_total_flops() // 2


def results() -> dict[str, dict[str, dict[str, dict]]]:
    """What was measured: group -> what was changed -> seed -> accuracy, training accuracy, work and more."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["results"]


def measured(arm: tuple[str, str], what: str = "accuracy") -> list[float]:
    """What was measured of one experiment, (group, name): a number for each of the SEEDS."""
    group, name = arm
    runs = results()[group][name]
    return [runs[str(seed)][what] for seed in SEEDS]


def compared(new: list[float], old: list[float]) -> str:
    """Runs with something changed beside runs without: "no effect" where the two overlap, else "higher" or "lower", and
    "a hint" unless the means lie further apart than the runs of either."""
    if max(min(new), min(old)) <= min(max(new), max(old)):
        return "no effect"
    word, spread = ("higher" if min(new) > max(old) else "lower", max(max(runs) - min(runs) for runs in (new, old)))
    return word if abs(fmean(new) - fmean(old)) > spread else f"{word}, a hint"
