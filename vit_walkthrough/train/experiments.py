"""What one choice is worth: the same tiny ViT trained anew with one thing changed, from several seeds.

python -m vit_walkthrough.train.experiments              # those without a result yet
python -m vit_walkthrough.train.experiments positions    # all of one group anew; the other results stay
"""

import argparse
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer, count_parameters
from vit_walkthrough.train.loop import evaluate, fit, init_model
from vit_walkthrough.weights.checkpoint import atomic_write

RESULTS = Path(__file__).with_name("experiments.json")
BASE = ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)
STEPS, SEEDS = 800, (0, 1, 2)
TEST_IMAGES = 2000


@dataclass(frozen=True)
class Experiment:
    """One thing changed: fields of BASE (config), arguments of `fit` (recipe) or of the training's ClutteredDigits
    (data); `change` gets the fresh ViT and returns what is trained; `model` makes another one instead of a ViT."""

    config: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    change: Callable[[VisionTransformer], nn.Module] | None = None
    model: Callable[[], nn.Module] | None = None


def small_cnn(classes: int = 10) -> nn.Module:
    """Four 3 x 3 convolutions with BatchNorm, each halving the picture, and a mean over what is left. It has as many
    parameters as BASE, give or take 3%."""
    widths = [3, 32, 64, 96, 96]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def linear_classifier(classes: int = 10, size: int = 48) -> nn.Module:
    """One matrix from all pixels to the logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, classes))


def start_positions(model: VisionTransformer, std: float) -> nn.Module:
    """Positions that start as normal numbers of another size, or all at zero."""
    nn.init.normal_(model.position_embedding.positions, std=std)
    return model


def keep_patches_from_class_token(model: VisionTransformer) -> nn.Module:
    """Patches may not attend to the class token; it still attends to all."""

    def shut(module, inputs, weights: Tensor) -> Tensor:
        open_ = torch.ones(weights.shape[-2:]).to(weights)
        open_[1:, 0] = 0
        weights = weights * open_
        return weights / weights.sum(dim=-1, keepdim=True)

    for block in model.blocks:
        block.attention.fused = False
        block.attention.weights.register_forward_hook(shut)
    return model


def no_position_for_class_token(model: VisionTransformer) -> nn.Module:
    """The class token's position is zero and stays so."""
    positions = model.position_embedding.positions
    with torch.no_grad():
        positions[:, 0] = 0
    positions.register_hook(lambda gradient: gradient.index_fill(1, torch.tensor(0, device=gradient.device), 0))
    return model


class Overlapping(nn.Module):
    """A patch embedding with a stride of half a patch: every pixel but the border's is read four times."""

    def __init__(self, embedding: nn.Linear, patch_size: int):
        super().__init__()
        self.projection = nn.Conv2d(3, embedding.out_features, patch_size, stride=patch_size // 2)
        with torch.no_grad():
            self.projection.weight.copy_(embedding.weight.view_as(self.projection.weight))
            self.projection.bias.copy_(embedding.bias)

    def forward(self, images: Tensor) -> Tensor:
        return rearrange(self.projection(images), "batch dim rows cols -> batch (rows cols) dim")


def overlap(model: VisionTransformer) -> nn.Module:
    """7 x 7 patches of 12 pixels, 6 apart, on images of 48; the ViT came with 7 x 7 patches on images of 84."""
    model.patch_embedding = Overlapping(model.patch_embedding.projection, model.config.patch_size)
    model.config = replace(model.config, image_size=48)  # what forward checks its images by
    return model


class Grey(nn.Module):
    """A ViT of one channel that is shown the mean of red, green and blue."""

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.mean(dim=1, keepdim=True))


def raw_pixels(model: VisionTransformer) -> nn.Module:
    """Tokens that are the pixels themselves, with mean 0 and standard deviation 1, and nothing learned about them."""
    images = ClutteredDigits("train").sample(256, draw=0)[0].mean(dim=1)
    projection = model.patch_embedding.projection
    with torch.no_grad():
        projection.weight.copy_(torch.eye(*projection.weight.shape) / images.std())
        projection.bias.fill_(-images.mean() / images.std())
    projection.requires_grad_(False)
    return Grey(model)


class Repeat(nn.Module):
    """One matrix, whose output serves as queries, keys and values. It starts as values do: doubled like
    the queries and keys of `init_model`, it would double the values too."""

    def __init__(self, dim: int):
        super().__init__()
        self.projection = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(tokens).repeat(1, 1, 3)


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm of every feature over the batch and its tokens, where a block has its LayerNorm."""

    def forward(self, tokens: Tensor) -> Tensor:
        flat = rearrange(tokens, "batch tokens dim -> (batch tokens) dim")
        return rearrange(super().forward(flat), "(batch tokens) dim -> batch tokens dim", batch=len(tokens))


def one_matrix(model: VisionTransformer) -> nn.Module:
    """One matrix for queries, keys and values in every block."""
    for block in model.blocks:
        block.attention.qkv = Repeat(model.config.dim)
    return model


def no_last_matrix(model: VisionTransformer) -> nn.Module:
    """The joined heads go to the stream as they are."""
    for block in model.blocks:
        block.attention.projection = nn.Identity()
    return model


def batch_norm(model: VisionTransformer) -> nn.Module:
    """BatchNorm for every LayerNorm."""
    for block in model.blocks:
        block.norm_1, block.norm_2 = TokenBatchNorm(model.config.dim), TokenBatchNorm(model.config.dim)
    model.norm = TokenBatchNorm(model.config.dim)
    return model


def no_final_norm(model: VisionTransformer) -> nn.Module:
    """The head reads the stream as it comes from the last block."""
    model.norm = nn.Identity()
    return model


def tanh_head(model: VisionTransformer) -> nn.Module:
    """The head of pre-training: a hidden layer with a tanh."""
    model.head = ClassificationHead(model.config.dim, model.config.classes, hidden=model.config.dim)
    return model


def random_head(model: VisionTransformer, share: float = 1.0) -> nn.Module:
    """A head that starts with Xavier's random weights, or a share of them, and not at zero."""
    nn.init.xavier_uniform_(model.head.logits.weight, gain=share)
    return model


def small_start(model: VisionTransformer) -> nn.Module:
    """Every weight a normal number of 0.02, as in timm and DeiT; the authors' own code starts with Xavier's."""
    return VisionTransformer(model.config)


def sgd(parameters, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; its weight decay is of another kind and stays at 1e-4."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)


GREY_PATCHES = dict(patch_size=8, channels=1)  # so that a flat patch has 64 pixels, as many as a token has numbers

# group -> what is changed -> how.
EXPERIMENTS: dict[str, dict[str, Experiment]] = {
    "base": {"as it is": Experiment()},
    "positions": {
        "none": Experiment(config=dict(positions="none")),
        "sincos": Experiment(config=dict(positions="sincos")),
    },
    "positions start": {f"std {std}": Experiment(change=partial(start_positions, std=std)) for std in (0.0, 0.02, 2.0)},
    "pooling": {
        "class, 1e-3": Experiment(recipe=dict(learning_rate=1e-3)),
        "mean, 1e-3": Experiment(config=dict(pooling="mean"), recipe=dict(learning_rate=1e-3)),
        "mean, 3e-3": Experiment(config=dict(pooling="mean")),
    },
    "class token": {
        "patches may not see it": Experiment(change=keep_patches_from_class_token),
        "it has no position": Experiment(change=no_position_for_class_token),
    },
    "projection": {
        "grey, learned": Experiment(config=GREY_PATCHES, change=Grey),
        "grey, raw pixels": Experiment(config=GREY_PATCHES, change=raw_pixels),
    },
    "patch size": {f"{side} px": Experiment(config=dict(patch_size=side)) for side in (24, 16, 8)},
    "overlap": {"12 px, 6 apart": Experiment(config=dict(image_size=84), change=overlap)},
    "heads": {f"{heads}": Experiment(config=dict(heads=heads)) for heads in (1, 8)},
    "attention": {
        "one matrix for q, k and v": Experiment(change=one_matrix),
        "no matrix after the heads": Experiment(change=no_last_matrix),
    },
    "norms": {
        "BatchNorm": Experiment(change=batch_norm),
        "none after the last block": Experiment(change=no_final_norm),
    },
    "head": {
        "hidden tanh layer": Experiment(change=tanh_head),
        "random start": Experiment(change=random_head),
        "random, a thousandth": Experiment(change=partial(random_head, share=0.001)),
    },
    "data": {
        f"{name}, {scans:,} scans": Experiment(model=model, data=dict(scans=scans))
        for name, model in {"ViT": None, "CNN": small_cnn, "linear": linear_classifier}.items()
        for scans in (100, 300, 1297)
        if model or scans < 1297
    },
    "training": {
        "learning rate 3e-4": Experiment(recipe=dict(learning_rate=3e-4)),
        "learning rate 1e-2": Experiment(recipe=dict(learning_rate=1e-2)),
        "no warm-up": Experiment(recipe=dict(warmup=0.0)),
        "weight decay 0": Experiment(recipe=dict(weight_decay=0.0)),
        "weight decay 1": Experiment(recipe=dict(weight_decay=1.0)),
        "AdamW's own betas": Experiment(recipe=dict(optimizer=torch.optim.AdamW)),
        "no augmentation": Experiment(data=dict(augment=False)),
        "all weights 0.02": Experiment(change=small_start),
        "SGD 0.03": Experiment(recipe=dict(optimizer=sgd, learning_rate=0.03)),
        "SGD 0.1": Experiment(recipe=dict(optimizer=sgd, learning_rate=0.1)),
    },
    "4,000 steps": {
        "one matrix for q, k and v": Experiment(change=one_matrix, recipe=dict(steps=4000)),
        "all weights 0.02": Experiment(change=small_start, recipe=dict(steps=4000)),
    },
}


def run(group: str, name: str, seed: int = 0, steps: int | None = None) -> dict[str, float | int]:
    """Train one experiment once. Returns its accuracy on TEST_IMAGES test images, on as many training images without
    augmentation, its parameters and the seconds that the training took.

    steps: instead of the experiment's own, which are STEPS unless it says otherwise.

    Raises: ValueError for an unknown experiment.
    """
    if name not in EXPERIMENTS.get(group, {}):
        known = "; ".join(f"{known}: {', '.join(names)}" for known, names in EXPERIMENTS.items())
        raise ValueError(f"experiment {group!r}, {name!r} is unknown; there are {known}")
    chosen = EXPERIMENTS[group][name]
    data = ClutteredDigits("train", seed=seed, **chosen.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if chosen.model:
            model = chosen.model()
        else:
            model = init_model(replace(BASE, **chosen.config), data, seed)
            model = chosen.change(model) if chosen.change else model
    recipe = dict(steps=STEPS, seed=seed, progress=False) | chosen.recipe | (dict(steps=steps) if steps else {})
    model, history = fit(model, data, **recipe)
    seen = ClutteredDigits("train", seed=seed, **(chosen.data | dict(augment=False)))
    return {
        "accuracy": evaluate(model, ClutteredDigits("test"), TEST_IMAGES),
        "training accuracy": evaluate(model, seen, TEST_IMAGES),
        "parameters": count_parameters(model),
        "seconds": round(history.seconds, 1),
    }


def results() -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """What was measured: group -> what was changed -> seed -> a result of `run`.

    Raises: FileNotFoundError if nothing was.
    """
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def _run_alone(group: str, name: str, seed: int) -> dict[str, float | int]:
    torch.set_num_threads(1)  # models as small as these gain more from a neighbour than from a second thread
    return run(group, name, seed)


def main(arguments: list[str] | None = None) -> None:
    """Train what has no result yet, or all of some groups anew, and keep the results."""
    parser = argparse.ArgumentParser(prog="python -m vit_walkthrough.train.experiments", description=main.__doc__)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(EXPERIMENTS)}")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.groups) - set(EXPERIMENTS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    known = results() if RESULTS.exists() else {}
    wanted = [
        (group, name, seed)
        for seed in SEEDS
        for group, names in EXPERIMENTS.items()
        for name in names
        if group in chosen.groups or (not chosen.groups and str(seed) not in known.get(group, {}).get(name, {}))
    ]
    with ProcessPoolExecutor(chosen.processes) as pool:
        for job in as_completed(jobs := {pool.submit(_run_alone, *one): one for one in wanted}):
            group, name, seed = jobs[job]
            known.setdefault(group, {}).setdefault(name, {})[str(seed)] = job.result()
            _keep(known)
            print(f"{group}: {name}, seed {seed}: {job.result()['accuracy']:.1%}", flush=True)


def _keep(known: dict) -> None:
    """In the order of EXPERIMENTS, without what is there no longer, written whole or not at all."""
    ordered = {
        group: {name: dict(sorted(known[group][name].items())) for name in names if name in known[group]}
        for group, names in EXPERIMENTS.items()
        if set(names) & set(known.get(group, {}))
    }
    with atomic_write(RESULTS) as unfinished:
        unfinished.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
