"""Fine-tuning as notebook 10 tells it: measured from three seeds into bundled/finetuned.json, and one seed again here.

python -m tests.nightly.test_few      writes the file anew, in ten minutes
"""

import json

import pytest
import torch

from notebooks.experiments import results
from notebooks.experiments.__main__ import run
from tests.nightly.test_maps import near, write
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train import evaluate, fit
from vit_walkthrough.train.finetune import Pictures, adapt, features
from vit_walkthrough.weights import load_tiny
from vit_walkthrough.weights.checkpoint import TINY

FILE = TINY / "finetuned.json"
STEPS = 600  # from scratch: enough to know the 500 pictures by heart
LONGER = 1500  # of a new head, to see whether it was only trained too briefly


def pairs(split, count, seed):
    """Pictures of two digits side by side with the label of the left one, and the labels of the right ones."""
    images, labels, _ = ClutteredDigits(split, seed=seed, augment=False).sample(2 * count, draw=0)
    return Pictures(torch.cat([images[:count], images[count:]], dim=-1), labels[:count]), labels[count:]


@torch.no_grad()
def said(model, pictures):
    device = next(model.parameters()).device
    return torch.cat([model(batch.to(device)).argmax(-1).cpu() for batch in pictures.images.split(250)])


def from_few(seed):
    """From 500 pictures: what each way names right, and how often two called each digit (row) each digit (column)."""
    few, (unseen, beside) = pairs("train", 500, seed)[0], pairs("test", 1000, 5)
    body, recipe, answers, curve = adapt(load_tiny(), image_size=(48, 96)), dict(seed=seed, progress=False), {}, {}
    vectors = features(body, few)

    def scores(name, model):
        answers[name] = said(model, unseen)
        asked = {"left": unseen.labels, "right": beside}
        found = {side: round((answers[name] == labels).float().mean().item(), 3) for side, labels in asked.items()}
        return found | {"of its own": round((said(model, few) == few.labels).float().mean().item(), 3)}

    def probed(steps):
        model, probe = adapt(body, classes=10), dict(batch_size=100, learning_rate=0.01, weight_decay=0.0)
        fit(model.head, vectors, steps=steps, **probe, **recipe)
        return model.cpu().eval()

    def watch(step, model, history):
        if step in (50, 100, 200, 400):
            curve[step] = scores("from scratch", model.eval())
            model.train()

    found = {"old head": body, "new head": probed(300), f"new head, {LONGER:,} steps": probed(LONGER)}
    tune = dict(steps=100, batch_size=32, learning_rate=1e-3)
    found["all of it"] = fit(adapt(body, classes=10), few, **tune, **recipe).model.cpu()
    config = found["all of it"].config
    found["from scratch"] = fit(config, few, steps=STEPS, batch_size=32, watch=watch, **recipe).model.cpu()
    found = {name: scores(name, model) for name, model in found.items()}
    pairs_of = {name: 10 * unseen.labels + answers[name] for name in ("new head", "all of it")}
    tables = {name: each.bincount(minlength=100).reshape(10, 10).tolist() for name, each in pairs_of.items()}
    return found | {"curve": curve | {STEPS: found["from scratch"]}, "confused": tables}


def at_72_pixels(seed):
    test = ClutteredDigits("test", size=72)
    recipe = dict(steps=40, batch_size=32, learning_rate=1e-3, seed=seed, progress=False)
    larger = fit(adapt(load_tiny(), image_size=72), ClutteredDigits("train", size=72, seed=seed), **recipe).model.cpu()
    same = fit(adapt(load_tiny()), ClutteredDigits("train", seed=seed), **recipe).model.cpu()
    ways = {"40 steps at 72 px": larger, "40 steps at 48 px": adapt(same, image_size=72)}
    return {name: evaluate(model, test, 500) for name, model in ways.items()}


def measured():
    for seed in range(3):
        yield f"few pictures, seed {seed}", lambda seed=seed: from_few(seed)
        yield f"72 pixels, seed {seed}", lambda seed=seed: at_72_pixels(seed)


@pytest.mark.parametrize("name", ["few pictures, seed 1", "72 pixels, seed 1"])
def test_an_entry_is_measured_again(name):
    found = dict(measured())[name]()
    wanted = near(found, lambda value: 0.03 if isinstance(value, float) else 10)  # shares, and counts of 1,000 pictures
    assert json.loads(FILE.read_text(encoding="utf-8"))[name] == wanted


if __name__ == "__main__":
    write(FILE, "python -m tests.nightly.test_few", measured())


@pytest.mark.parametrize(("group", "name"), [("data", "linear, 100 scans"), ("depth and dim", "2 blocks, dim 32")])
def test_an_experiment_gives_what_is_stored(group, name):
    stored, again = results()[group][name]["1"], run(group, name, seed=1)
    for what in ("accuracy", "training accuracy"):  # another machine rounds differently
        assert again[what] == pytest.approx(stored[what], abs=0.02)
    assert (again["parameters"], again["work"]) == (stored["parameters"], stored["work"])
