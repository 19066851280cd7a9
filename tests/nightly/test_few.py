"""Fine-tuning as notebook 10 tells it: measured from three seeds into bundled/finetuned.json, and one seed again here.

python -m tests.nightly.test_few      writes the file anew, in ten minutes
"""

import json

import pytest
import torch

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.vit import ClassificationHead
from vit_walkthrough.train import evaluate, fit
from vit_walkthrough.train.finetune import Pictures, adapt, features
from vit_walkthrough.weights import load_tiny
from vit_walkthrough.weights.checkpoint import TINY

FILE = TINY / "finetuned.json"
COMMAND = "python -m tests.nightly.test_few"
STEPS = 1500  # from scratch, until the 500 pictures are known by heart


def pairs(split, count, seed):
    """Pictures of two digits side by side with the label of the left one, and the labels of the right ones."""
    images, labels, _ = ClutteredDigits(split, seed=seed, augment=False).sample(2 * count, draw=0)
    return Pictures(torch.cat([images[:count], images[count:]], dim=-1), labels[:count]), labels[count:]


@torch.no_grad()
def right(model, pictures, labels):
    """The share of the pictures for which the model says these labels."""
    said = torch.cat([model(batch).argmax(-1) for batch in pictures.images.split(250)])
    return round((said == labels).float().mean().item(), 4)


@torch.no_grad()
def confused(model, pictures):
    """How often each digit (row) was called each digit (column)."""
    said = torch.cat([model(batch).argmax(-1) for batch in pictures.images.split(250)])
    return torch.bincount(10 * pictures.labels + said, minlength=100).reshape(10, 10).tolist()


def from_few(seed):
    """From one set of 500 pictures: a new head on the frozen ViT, all of the ViT, and a new ViT."""
    few, (unseen, beside) = pairs("train", 500, seed)[0], pairs("test", 1000, 5)
    body, recipe, curve = adapt(load_tiny(), image_size=(48, 96)), dict(seed=seed, progress=False), {}

    def scores(model):
        left = {"training": right(model, few, few.labels), "test": right(model, unseen, unseen.labels)}
        return left | {"names the right one": right(model, unseen, beside)}

    def watch(step, model, history):
        if step and step % 125 == 0:
            curve[step] = scores(model.eval())
            model.train()

    probe = recipe | dict(steps=300, batch_size=100, learning_rate=0.01, weight_decay=0.0)
    frozen = adapt(body, classes=10)
    frozen.head = fit(ClassificationHead(64, 10), features(body, few), **probe).model.cpu()
    tuned = fit(adapt(body, classes=10), few, steps=100, batch_size=32, learning_rate=1e-3, **recipe).model.cpu()
    scratch = fit(tuned.config, few, steps=STEPS, batch_size=32, watch=watch, **recipe).model.cpu()
    curve[STEPS] = scores(scratch)
    found = {"old head": body, "new head": frozen, "all of it": tuned, "from scratch": scratch}
    tables = {f"confused, {name}": confused(found[name], unseen) for name in ("old head", "new head", "all of it")}
    return {name: scores(model) for name, model in found.items()} | {"curve from scratch": curve} | tables


def at_72_pixels(seed):
    """The ViT that was trained at 48 pixels, after 40 more steps at 72 pixels, or at 48."""
    test = ClutteredDigits("test", size=72)
    recipe = dict(steps=40, batch_size=32, learning_rate=1e-3, seed=seed, progress=False)
    larger = fit(adapt(load_tiny(), image_size=72), ClutteredDigits("train", size=72, seed=seed), **recipe).model.cpu()
    same = fit(adapt(load_tiny()), ClutteredDigits("train", seed=seed), **recipe).model.cpu()
    return {
        "40 steps at 72 px": evaluate(larger, test, 500),
        "40 steps at 48 px": evaluate(adapt(same, image_size=72), test, 500),
    }


def measured():
    """All entries, each a name and how it is measured."""
    for seed in range(3):
        yield f"few pictures, seed {seed}", lambda seed=seed: from_few(seed)
        yield f"72 pixels, seed {seed}", lambda seed=seed: at_72_pixels(seed)


@pytest.mark.parametrize("name", ["few pictures, seed 1", "72 pixels, seed 1"])
def test_an_entry_is_measured_again(name):
    def near(value):
        if isinstance(value, dict):
            return {str(key): near(one) for key, one in value.items()}
        return [near(one) for one in value] if isinstance(value, list) else pytest.approx(value, abs=margin(value))

    def margin(value):
        return 0.03 if isinstance(value, float) else 10  # of 1,000 pictures

    assert json.loads(FILE.read_text(encoding="utf-8"))[name] == near(dict(measured())[name]())


def write(found):
    """One line for each entry."""
    lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in ({"command": COMMAND} | found).items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write({name: measure() for name, measure in measured()})
