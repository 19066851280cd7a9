"""The experiments: what each one changes in BASE, in the data or in the training, and what it measures besides."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from notebooks.experiments import BASE, variants
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train import successors
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.train.loop import evaluate
from vit_walkthrough.train.optimizers import adamw

STEPS = 1000
IMAGES = 2000  # that an accuracy is measured on


@dataclass(frozen=True)
class Experiment:
    """One thing changed: fields of BASE (config), arguments of `fit` (recipe) or of the training's ClutteredDigits
    (data), the model (`change` gets the untrained ViT and returns what is trained; `begin` also gets the seed), or what
    stands between the data and the model (`between`). `measure`: what else is told of the trained model."""

    config: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    change: Callable[[VisionTransformer], nn.Module] | None = None
    begin: Callable[[VisionTransformer, int], nn.Module] | None = None
    between: Callable[[ClutteredDigits], object] = lambda data: data
    measure: dict[str, Callable[[nn.Module], float]] = field(default_factory=dict)


def longest_token(model: VisionTransformer) -> float:
    """How many times as long as the median the longest patch is behind the last block: a mean over 500 test images."""
    with torch.no_grad(), record(model, "norm.input") as trace:
        model(ClutteredDigits("test").sample(500, draw=0)[0])
    lengths = trace["norm.input"][:, 1 : 1 + model.config.patches].norm(dim=-1)
    return (lengths.amax(dim=1) / lengths.median(dim=1).values).mean().item()


def map_mass(model: VisionTransformer) -> float:
    """How much of the class token's attention to patches lies on the digit, in the last block, as a multiple of the
    digit's share of the picture: a mean over 500 test images."""
    images, _, masks = ClutteredDigits("test").sample(500, draw=0)
    with torch.no_grad(), record(model, "*.weights") as trace:
        model(images)
    maps = trace.attention[-1].mean(dim=1)[:, 0, 1 : 1 + model.config.patches]
    return (mass_on_object(maps, masks) / masks.float().mean(dim=(1, 2))).mean().item()


def at_72_px(change: Callable[[VisionTransformer], nn.Module] = lambda model: model) -> Callable:
    """A measure: the accuracy on images of 72 pixels, for which the model was not trained. change: of its places."""
    return lambda model: evaluate(change(adapt(model, image_size=72)).eval(), ClutteredDigits("test", 72), IMAGES)


TOKENS = {"longest token": longest_token, "mass": map_mass}
MATRICES = [f"blocks.*.{name}.weight" for name in ("qkv", "projection", "expand", "contract")]
FIRST = ("patch_embedding.projection.*", "position_embedding.positions")  # and pixels as they are
NETWORKS = {"ViT": None, "CNN": lambda model: variants.small_cnn(), "linear": variants.linear_classifier}

# group -> what is changed -> how.
EXPERIMENTS: dict[str, dict[str, Experiment]] = {
    "base": {"as it is": Experiment()},
    "steps": {
        "twice as many": Experiment(recipe=dict(steps=2 * STEPS)),
        "the work of overlap": Experiment(recipe=dict(steps=round(3.25 * STEPS))),
        "the work of two convolutions": Experiment(recipe=dict(steps=round(1.44 * STEPS))),
        "the work of registers": Experiment(recipe=dict(steps=round(1.214 * STEPS)), measure=TOKENS),
    },
    "positions": {
        "none": Experiment(config=dict(positions="none"), measure={"at 72 px": at_72_px()}),
        "sincos": Experiment(config=dict(positions="sincos")),
        "start at 0.02": Experiment(change=variants.start(nn.init.normal_, "position_embedding.positions", std=0.02)),
    },
    "class token": {
        "mean of the patches instead": Experiment(config=dict(pooling="mean")),
        "patches may not see it": Experiment(change=variants.keep_patches_from_class_token),
    },
    "patches": {
        **{f"{side} px": Experiment(config=dict(patch_size=side)) for side in (24, 16, 8)},
        "overlap, 6 apart": Experiment(config=dict(image_size=84), change=variants.overlap),
        "two convolutions": Experiment(change=successors.convolutions),
    },
    "attention": {
        **{f"{heads} heads": Experiment(config=dict(heads=heads)) for heads in (1, 8)},
        "one matrix for q, k and v": Experiment(change=variants.put(variants.Repeat, "*.qkv")),
        "no matrix after the heads": Experiment(change=variants.put(nn.Identity, "*.attention.projection")),
    },
    "norms": {
        "BatchNorm": Experiment(change=variants.put(variants.token_batch_norm, "*norm_?", "norm")),
        "none after the last block": Experiment(change=variants.put(nn.Identity, "norm")),
        "last, as in 2017": Experiment(change=variants.norm_last),
        "last, no warm-up": Experiment(change=variants.norm_last, recipe=dict(warmup=0.0)),
        "none in the blocks": Experiment(change=variants.put(nn.Identity, "*.norm_?")),
    },
    "additions": {
        "none": Experiment(change=variants.no_additions),
        "none, a quarter of the rate": Experiment(change=variants.no_additions, recipe=dict(learning_rate=1e-3)),
    },
    "head": {"random start": Experiment(change=variants.start(nn.init.xavier_uniform_, "head.logits.weight"))},
    "data": {
        f"{name}, {scans:,} scans": Experiment(change=change, data=dict(scans=scans))
        for name, change in NETWORKS.items()
        for scans in (100, 300, 1097)
        if (name, scans) != ("ViT", 1097)  # this is the base
    },
    "100 scans": {
        "no augmentation": Experiment(data=dict(scans=100, augment=False)),
        "mixup": Experiment(data=dict(scans=100), between=variants.Mixup),
        "drop path": Experiment(data=dict(scans=100), change=variants.drop_path),
    },
    "dropout": {
        "0.1": Experiment(config=dict(dropout=0.1)),
        "0.1, not after positions": Experiment(config=dict(dropout=0.1), change=variants.put(nn.Identity, "dropout")),
        "0.1, on attention weights too": Experiment(config=dict(dropout=0.1), change=variants.dropout_on_weights),
    },
    "batch": {  # as many images in all; the rate goes with the root of the batch
        f"{size}": Experiment(
            recipe=dict(batch_size=size, steps=STEPS * 128 // size, learning_rate=4e-3 * (size / 128) ** 0.5)
        )
        for size in (16, 64, 256)
    },
    "training": {
        "a quarter of the rate": Experiment(recipe=dict(learning_rate=1e-3)),
        "four times the rate": Experiment(recipe=dict(learning_rate=1.6e-2)),
        "no warm-up": Experiment(recipe=dict(warmup=0.0)),
        "weight decay 0": Experiment(recipe=dict(weight_decay=0.0)),
        "AdamW 3e-3": Experiment(recipe=dict(optimizer=adamw, weight_decay=0.1, learning_rate=3e-3)),
        "AdamW 1e-3": Experiment(recipe=dict(optimizer=adamw, weight_decay=0.1, learning_rate=1e-3)),
        "SGD 0.03": Experiment(recipe=dict(optimizer=variants.sgd, learning_rate=0.03)),
        "SGD 0.1": Experiment(recipe=dict(optimizer=variants.sgd, learning_rate=0.1)),
        "no augmentation": Experiment(data=dict(augment=False)),
        "all weights 0.02": Experiment(change=lambda model: VisionTransformer(model.config)),  # as in timm and DeiT
        "matrices 0.02": Experiment(change=variants.start(nn.init.trunc_normal_, *MATRICES, std=0.02)),
        "all but matrices 0.02": Experiment(change=variants.start(nn.init.trunc_normal_, *FIRST, std=0.02)),
    },
    "depth and dim": {
        f"{depth} blocks, dim {dim}": Experiment(config=dict(depth=depth, dim=dim, hidden=2 * dim))
        for depth in (2, 4, 8)
        for dim in (32, 64, 128)
        if (depth, dim) != (BASE.depth, BASE.dim)
    },
}


# Notebook 11.
EXPERIMENTS["since"] = {
    "as it is": Experiment(measure=TOKENS | {"at 72 px": at_72_px()}),
    "registers": Experiment(change=successors.registers, measure=TOKENS),
    "rotary": Experiment(
        config=dict(positions="none"),
        change=successors.rotary,
        measure={
            "at 72 px": at_72_px(successors.rotary),
            "at 72 px, stretched": at_72_px(partial(successors.rotary, stretch=4 / 6)),
        },
    ),
    "relative bias": Experiment(
        config=dict(positions="none"), change=successors.relative, measure={"at 72 px": at_72_px(successors.relative)}
    ),
    "windows": Experiment(config=dict(pooling="mean"), change=successors.windows),
    "shifted windows": Experiment(config=dict(pooling="mean"), change=partial(successors.windows, shift=1)),
    "attention pooling": Experiment(change=successors.attention_pooling),
    "a teacher, 100 scans": Experiment(data=dict(scans=100), change=successors.student, between=variants.Taught),
}
# Notebook 12. What is pretrained has seen all training scans, without their labels. A head alone has so little to learn
# from that it needs a far larger rate: with that of `fit` it is not half trained after STEPS.
PROBE = dict(learning_rate=1.0, weight_decay=0.0)
EXPERIMENTS["without labels"] = {
    f"{name}, {scans:,} scans": Experiment(
        config=dict(patch_size=8, pooling="mean"), data=dict(scans=scans), begin=begin, recipe=recipe
    )
    for name, begin, recipe in (
        ("all weights, random start", None, {}),
        ("all weights, pretrained", variants.pretrained, {}),
        ("the head, random start", lambda model, seed: variants.head_alone(model), PROBE),
        ("the head, pretrained", lambda model, seed: variants.head_alone(variants.pretrained(model, seed)), PROBE),
    )
    for scans in (100, 1097)
}

# Readers ask for these. After STEPS they know fewer of the training images, too, than the base: they get twice that.
RISING = {
    "class token": ["mean of the patches instead"],  # for windows
    "since": ["windows", "shifted windows"],
    "patches": ["24 px"],
    "attention": ["1 heads", "one matrix for q, k and v"],
    "norms": ["last, as in 2017", "none in the blocks"],
    "additions": ["none", "none, a quarter of the rate"],
    "dropout": ["0.1"],
    "training": ["a quarter of the rate", "AdamW 3e-3", "SGD 0.1", "all weights 0.02", "matrices 0.02"],
}
EXPERIMENTS["twice the steps"] = {
    f"{group}: {name}": replace(one, recipe=one.recipe | dict(steps=2 * STEPS))
    for group, names in RISING.items()
    for name, one in EXPERIMENTS[group].items()
    if name in names
}
