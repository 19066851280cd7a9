"""What one choice is worth: the same tiny ViT is trained to the end with one thing changed, from several seeds.

python -m vit_walkthrough.train.experiments              # those without a result yet
python -m vit_walkthrough.train.experiments positions    # all of one group again; the other results stay
"""

import argparse
import copy
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.look.explain import mass_on_object
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.attention import MultiHeadSelfAttention
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train import masked, successors, variants
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.train.loop import RECIPE, History, evaluate, fit, init_model, seeded
from vit_walkthrough.train.optimizers import adamw
from vit_walkthrough.train.variants import BASE
from vit_walkthrough.weights.checkpoint import atomic_write

RESULTS = Path(__file__).with_name("experiments.json")
STEPS, SEEDS = 1000, (0, 1, 2)
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
NETWORKS = {"ViT": None, "CNN": variants.small_cnn, "linear": variants.linear_classifier}

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
        "two convolutions": Experiment(change=variants.convolutions),
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
    "head": {
        "random start": Experiment(change=variants.start(nn.init.xavier_uniform_, "head.logits.weight")),
    },
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
        config=dict(positions="none"),
        change=successors.relative,
        measure={"at 72 px": at_72_px(successors.relative)},
    ),
    "windows": Experiment(config=dict(pooling="mean"), change=successors.windows),
    "shifted windows": Experiment(config=dict(pooling="mean"), change=partial(successors.windows, shift=1)),
    "attention pooling": Experiment(change=successors.attention_pooling),
    "a teacher, 100 scans": Experiment(data=dict(scans=100), change=successors.student, between=successors.Taught),
}
# Notebook 12. What is pretrained has seen all training scans, without their labels. A head alone has so little to learn
# from that it needs a far larger rate: with that of `fit` it is not half trained after STEPS.
PROBE = dict(learning_rate=1.0, weight_decay=0.0)
EXPERIMENTS["without labels"] = {
    f"{name}, {scans:,} scans": Experiment(config=masked.SIZES, data=dict(scans=scans), begin=begin, recipe=recipe)
    for name, begin, recipe in (
        ("all weights, random start", None, {}),
        ("all weights, pretrained", masked.pretrained, {}),
        ("the head, random start", lambda model, seed: masked.head_alone(model), PROBE),
        ("the head, pretrained", lambda model, seed: masked.head_alone(masked.pretrained(model, seed)), PROBE),
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


def multiply_adds(model: nn.Module) -> int:
    """Multiplications, each with its addition, that the model needs for one image of BASE's size."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, MultiHeadSelfAttention):
            module.fused = False  # torch does not count what the fused kernel does
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, BASE.channels, BASE.height, BASE.width))
    return counter.get_total_flops() // 2


def run(group: str, name: str, seed: int = 0) -> dict:
    """Train one experiment once. Returns its accuracy on IMAGES test images and on as many training images without
    augmentation, its accuracy on validation on the way (ten equal parts), its parameters, the multiply-adds of all
    forward passes, and the seconds that the training took. Raises: ValueError for an unknown experiment."""
    if name not in EXPERIMENTS.get(group, {}):
        known = "; ".join(f"{known}: {', '.join(names)}" for known, names in EXPERIMENTS.items())
        raise ValueError(f"experiment {group!r}, {name!r} is unknown; choose from {known}")
    chosen = EXPERIMENTS[group][name]
    recipe = dict(steps=STEPS, batch_size=128, seed=seed, progress=False) | chosen.recipe
    data, validation, curve = ClutteredDigits("train", seed=seed, **chosen.data), ClutteredDigits("validation"), []
    model = init_model(replace(BASE, **chosen.config), data, seed)
    with seeded(seed):
        model = chosen.change(model) if chosen.change else model
        model = chosen.begin(model, seed) if chosen.begin else model
    work = multiply_adds(model) * recipe["steps"] * recipe["batch_size"]

    def watch(step: int, model: nn.Module, history: History) -> None:
        if step and step % (recipe["steps"] // 10) == 0:
            curve.append(evaluate(model, validation, 1000))

    model, history = fit(model, chosen.between(data), watch=watch, **recipe)
    upright = ClutteredDigits("train", seed=seed, **(chosen.data | dict(augment=False)))
    return {
        "accuracy": evaluate(model, ClutteredDigits("test"), IMAGES),
        "training accuracy": evaluate(model, upright, IMAGES),
        "curve": [*curve[:9], evaluate(model, validation, 1000)],
        "parameters": count_parameters(model),
        "work": work,
        "seconds": round(history.seconds, 1),
        **{name: measure(model) for name, measure in chosen.measure.items()},
    }


def results() -> dict[str, dict[str, dict[str, dict]]]:
    """What was measured: group -> what was changed -> seed -> a result of `run`. Raises: ValueError for a file that is
    cut off, or was measured with another version of the recipe."""
    try:
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{RESULTS.name} is not complete ({error}); delete it and measure again") from error
    if stored.get("recipe") != RECIPE:
        other = stored.get("recipe")
        raise ValueError(f"{RESULTS.name} has recipe {other}, but this is recipe {RECIPE}; measure again")
    return stored["results"]


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
    word, spread = "higher" if min(new) > max(old) else "lower", max(max(runs) - min(runs) for runs in (new, old))
    return word if abs(fmean(new) - fmean(old)) > spread else f"{word}, a hint"


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
                facts = {"recipe": RECIPE, "torch": torch.__version__, "results": known}
                unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            print(f"{group}: {name}, seed {seed}: {job.result()['accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
