"""What one choice is worth: the same tiny ViT is trained again with one thing changed, from several seeds.

python -m vit_walkthrough.train.experiments              # those without a result yet
python -m vit_walkthrough.train.experiments positions    # all of one group again; the other results stay
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from einops.layers.torch import Rearrange, Reduce
from torch import Tensor, nn

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer, count_parameters
from vit_walkthrough.train.loop import adamw, evaluate, fit, init_model, seeded
from vit_walkthrough.weights.checkpoint import atomic_write

RESULTS = Path(__file__).with_name("experiments.json")
BASE = ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)
STEPS, SEEDS = 800, (0, 1, 2)
TEST_IMAGES = 2000


@dataclass(frozen=True)
class Experiment:
    """One thing changed: fields of BASE (config), arguments of `fit` (recipe) or of the training's ClutteredDigits
    (data), or the model: `change` gets the untrained ViT and returns what is trained."""

    config: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    change: Callable[[VisionTransformer], nn.Module] | None = None


def put(new: Callable[[], nn.Module], *places: str) -> Callable[[VisionTransformer], nn.Module]:
    """A change that puts a new module at every place that one of the patterns matches, such as *.attention.qkv."""

    def change(model: VisionTransformer) -> VisionTransformer:
        names = [name for name, _ in model.named_modules() if any(fnmatchcase(name, place) for place in places)]
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new())
        return model

    return change


def start(name: str, init: Callable[..., Tensor], **settings) -> Callable[[VisionTransformer], nn.Module]:
    """A change that gives one parameter other numbers to start from."""

    def change(model: VisionTransformer) -> VisionTransformer:
        init(model.get_parameter(name), **settings)
        return model

    return change


class Repeat(nn.Module):
    """One matrix, whose output serves as queries, keys and values. It is not doubled at the start as the queries and
    keys of `init_model` are, because this would double the values too."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(BASE.dim, BASE.dim)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(tokens).repeat(1, 1, 3)


class TokenBatchNorm(nn.BatchNorm1d):
    """BatchNorm of every feature over the batch and its tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        flat = rearrange(tokens, "batch tokens dim -> (batch tokens) dim")
        return rearrange(super().forward(flat), "(batch tokens) dim -> batch tokens dim", batch=len(tokens))


def grey(model: VisionTransformer) -> nn.Module:
    """A ViT of one channel that reads the mean of red, green and blue."""
    return nn.Sequential(Reduce("batch channels height width -> batch 1 height width", "mean"), model)


@torch.no_grad()
def raw_pixels(model: VisionTransformer) -> nn.Module:
    """Tokens that are the grey pixels, with mean 0 and standard deviation 1; the projection is not trained."""
    images = ClutteredDigits("train").sample(256, draw=0)[0].mean(dim=1)
    projection = model.patch_embedding.projection.requires_grad_(False)
    projection.weight.copy_(torch.eye(*projection.weight.shape) / images.std())
    projection.bias.fill_(-images.mean() / images.std())
    return grey(model)


def overlap(model: VisionTransformer) -> nn.Module:
    """7 x 7 patches of 12 pixels, 6 apart, on images of 48. The given ViT has 7 x 7 patches on images of 84."""
    linear, side = model.patch_embedding.projection, model.config.patch_size
    convolution = nn.Conv2d(3, model.config.dim, side, stride=side // 2)
    convolution.load_state_dict({"weight": linear.weight.view_as(convolution.weight), "bias": linear.bias})
    model.patch_embedding = nn.Sequential(convolution, Rearrange("batch dim rows cols -> batch (rows cols) dim"))
    model.config = replace(model.config, image_size=48)  # forward compares its images with it
    return model


def keep_patches_from_class_token(model: VisionTransformer) -> nn.Module:
    """Patches may not attend to the class token; the class token still attends to all."""

    def shut(module, inputs, weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[..., 1:, 0] = 0
        return weights / weights.sum(dim=-1, keepdim=True)

    for block in model.blocks:
        block.attention.fused = False
        block.attention.weights.register_forward_hook(shut)
    return model


def no_position_for_class_token(model: VisionTransformer) -> nn.Module:
    """The class token's position is zero and stays so."""
    positions = model.position_embedding.positions
    nn.init.zeros_(positions[:, 0])
    positions.register_hook(lambda gradient: gradient.index_fill(1, torch.tensor(0, device=gradient.device), 0))
    return model


def small_start(model: VisionTransformer) -> nn.Module:
    """Every weight a normal number of 0.02, as in timm and DeiT; the authors' own code starts with Xavier's."""
    return VisionTransformer(model.config)


def small_cnn(model: VisionTransformer | None = None) -> nn.Module:
    """Instead of a ViT, four 3 x 3 convolutions with BatchNorm, each of which halves the picture, and a mean over the
    rest. It has as many parameters as BASE, within 3%."""
    widths = [3, 32, 64, 96, 96]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], BASE.classes))


def linear_classifier(model: VisionTransformer) -> nn.Module:
    """Instead of a ViT, one matrix from all pixels to the logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * BASE.height * BASE.width, BASE.classes))


def sgd(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Gradient descent with momentum. Its weight decay is of another kind and stays at 1e-4."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


GREY_PATCHES = dict(patch_size=8, channels=1)  # so that a flat patch has 64 pixels, as many as a token has numbers

# group -> what is changed -> how.
EXPERIMENTS: dict[str, dict[str, Experiment]] = {
    "base": {"as it is": Experiment()},
    "positions": {
        "none": Experiment(config=dict(positions="none")),
        "sincos": Experiment(config=dict(positions="sincos")),
    },
    "positions start": {
        f"std {std}": Experiment(change=start("position_embedding.positions", nn.init.normal_, std=std))
        for std in (0.0, 0.02, 2.0)
    },
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
        "grey, learned": Experiment(config=GREY_PATCHES, change=grey),
        "grey, raw pixels": Experiment(config=GREY_PATCHES, change=raw_pixels),
    },
    "patch size": {f"{side} px": Experiment(config=dict(patch_size=side)) for side in (24, 16, 8)},
    "overlap": {"12 px, 6 apart": Experiment(config=dict(image_size=84), change=overlap)},
    "heads": {f"{heads}": Experiment(config=dict(heads=heads)) for heads in (1, 8)},
    "attention": {
        "one matrix for q, k and v": Experiment(change=put(Repeat, "*.qkv")),
        "no matrix after the heads": Experiment(change=put(nn.Identity, "*.attention.projection")),
    },
    "norms": {
        "BatchNorm": Experiment(change=put(partial(TokenBatchNorm, BASE.dim), "*norm_?", "norm")),
        "none after the last block": Experiment(change=put(nn.Identity, "norm")),
    },
    "head": {
        "hidden tanh layer": Experiment(
            change=put(partial(ClassificationHead, BASE.dim, BASE.classes, hidden=BASE.dim), "head")
        ),
        "random start": Experiment(change=start("head.logits.weight", nn.init.xavier_uniform_)),
        "random, a thousandth": Experiment(change=start("head.logits.weight", nn.init.xavier_uniform_, gain=0.001)),
    },
    "data": {
        f"{name}, {scans:,} scans": Experiment(change=change, data=dict(scans=scans))
        for name, change in {"ViT": None, "CNN": small_cnn, "linear": linear_classifier}.items()
        for scans in (100, 300, 1297)
        if (name, scans) != ("ViT", 1297)  # this is the base
    },
    "training": {
        "learning rate 3e-4": Experiment(recipe=dict(learning_rate=3e-4)),
        "learning rate 1e-2": Experiment(recipe=dict(learning_rate=1e-2)),
        "no warm-up": Experiment(recipe=dict(warmup=0.0)),
        "weight decay 0": Experiment(recipe=dict(weight_decay=0.0)),
        "weight decay 1": Experiment(recipe=dict(weight_decay=1.0)),
        "AdamW's own betas": Experiment(recipe=dict(optimizer=partial(adamw, betas=(0.9, 0.999)))),
        "no augmentation": Experiment(data=dict(augment=False)),
        "all weights 0.02": Experiment(change=small_start),
        "SGD 0.03": Experiment(recipe=dict(optimizer=sgd, learning_rate=0.03)),
        "SGD 0.1": Experiment(recipe=dict(optimizer=sgd, learning_rate=0.1)),
    },
    "4,000 steps": {
        "one matrix for q, k and v": Experiment(change=put(Repeat, "*.qkv"), recipe=dict(steps=4000)),
        "all weights 0.02": Experiment(change=small_start, recipe=dict(steps=4000)),
    },
}


def run(group: str, name: str, seed: int = 0) -> dict[str, float | int]:
    """Train one experiment once. Returns its accuracy on TEST_IMAGES test images and on as many training images without
    augmentation, its parameters, and the seconds that the training took.

    Raises: ValueError for an unknown experiment.
    """
    if name not in EXPERIMENTS.get(group, {}):
        known = "; ".join(f"{known}: {', '.join(names)}" for known, names in EXPERIMENTS.items())
        raise ValueError(f"experiment {group!r}, {name!r} is unknown; choose from {known}")
    chosen = EXPERIMENTS[group][name]
    data = ClutteredDigits("train", seed=seed, **chosen.data)
    model = init_model(replace(BASE, **chosen.config), data, seed)
    if chosen.change:
        with seeded(seed):
            model = chosen.change(model)
    model, history = fit(model, data, **(dict(steps=STEPS, seed=seed, progress=False) | chosen.recipe))
    upright = ClutteredDigits("train", seed=seed, **(chosen.data | dict(augment=False)))
    return {
        "accuracy": evaluate(model, ClutteredDigits("test"), TEST_IMAGES),
        "training accuracy": evaluate(model, upright, TEST_IMAGES),
        "parameters": count_parameters(model),
        "seconds": round(history.seconds, 1),
    }


def results() -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """What was measured: group -> what was changed -> seed -> a result of `run`."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    """Train what has no result yet, or all of some groups again, and keep the results."""
    parser = argparse.ArgumentParser("python -m vit_walkthrough.train.experiments", description=main.__doc__)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(EXPERIMENTS)}")
    groups = parser.parse_args(arguments).groups
    if unknown := set(groups) - set(EXPERIMENTS):
        parser.error(f"no group {', '.join(sorted(unknown))}; choose from {', '.join(EXPERIMENTS)}")
    before = results() if RESULTS.exists() else {}
    known = {  # in the order of EXPERIMENTS, without experiments that are there no longer
        group: {name: before.get(group, {}).get(name, {}) for name in names} for group, names in EXPERIMENTS.items()
    }
    every = [(group, name, seed) for seed in SEEDS for group, names in known.items() for name in names]
    missing = [one for one in every if str(one[2]) not in known[one[0]][one[1]]]
    wanted = [one for one in every if one[0] in groups] or missing
    # The models are small: two runs at once are faster than one run with two threads.
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = {pool.submit(run, *one): one for one in wanted}
        for job in as_completed(jobs):
            group, name, seed = jobs[job]
            known[group][name][str(seed)] = job.result()
            known[group][name] = dict(sorted(known[group][name].items()))
            with atomic_write(RESULTS) as unfinished:
                unfinished.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            print(f"{group}: {name}, seed {seed}: {job.result()['accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
