"""The same tiny ViT is trained to the end with one thing changed, from several seeds.

python -m notebooks.experiments              # those without a result yet
python -m notebooks.experiments positions    # all of one group again; the other results stay
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace

import torch
from torch import nn

from notebooks.experiments import BASE, RESULTS, SEEDS, multiply_adds
from notebooks.experiments.arms import EXPERIMENTS, IMAGES, STEPS
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.vit import count_parameters
from vit_walkthrough.train.loop import RECIPE, History, evaluate, fit, init_model, seeded
from vit_walkthrough.weights.checkpoint import atomic_write


def run(group: str, name: str, seed: int = 0) -> dict:
    """Train one experiment once. Returns its accuracy on IMAGES test images and on as many training images without
    augmentation, its accuracy on validation on the way (ten equal parts), its parameters, the multiply-adds of all
    forward passes, and the seconds that the training took. Raises: ValueError for an unknown experiment."""
    if name not in EXPERIMENTS.get(group, {}):
        known = "; ".join(f"{known}: {', '.join(names)}" for known, names in EXPERIMENTS.items())
        raise ValueError(f"experiment {group!r}, {name!r} is unknown; choose from {known}")
    chosen = EXPERIMENTS[group][name]
    recipe = dict(steps=STEPS, batch_size=128, seed=seed, progress=False) | chosen.recipe
    data, validation, curve = (ClutteredDigits("train", seed=seed, **chosen.data), ClutteredDigits("validation"), [])
    model = init_model(replace(BASE, **chosen.config), data, seed)
    with seeded(seed):
        model = chosen.change(model) if chosen.change else model
        model = chosen.begin(model, seed) if chosen.begin else model
    work = multiply_adds(model) * recipe["steps"] * recipe["batch_size"]

    def watch(step: int, model: nn.Module, history: History) -> None:
        if step and step % (recipe["steps"] // 10) == 0:
            curve.append(evaluate(model, validation, 1000))

    started = time.perf_counter()
    model, _ = fit(model, chosen.between(data), watch=watch, **recipe)
    seconds = time.perf_counter() - started
    upright = ClutteredDigits("train", seed=seed, **(chosen.data | dict(augment=False)))
    return {
        "accuracy": evaluate(model, ClutteredDigits("test"), IMAGES),
        "training accuracy": evaluate(model, upright, IMAGES),
        "curve": [*curve[:9], evaluate(model, validation, 1000)],
        "parameters": count_parameters(model),
        "work": work,
        "seconds": round(seconds, 1),
        **{name: measure(model) for name, measure in chosen.measure.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Train what has no result yet, or all of some groups again, and keep the results."""
    parser = argparse.ArgumentParser("python -m notebooks.experiments", description=main.__doc__)
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(EXPERIMENTS)}")
    groups = parser.parse_args(arguments).groups
    if unknown := set(groups) - set(EXPERIMENTS):
        parser.error(f"no group {', '.join(sorted(unknown))}; choose from {', '.join(EXPERIMENTS)}")
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    before = stored["results"] if stored.get("recipe") == RECIPE else {}  # others cannot be compared
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
