"""What maps of attention score on all bundled models: measured into bundled/maps.json, and two entries again here.

python -m tests.nightly.test_maps      writes the file anew, in half an hour
"""

import json
import math
from copy import deepcopy

import pytest
import torch
from einops import repeat

from vit_walkthrough import patchify, record
from vit_walkthrough.data import ClutteredDigits, PlantedCue, plant
from vit_walkthrough.look.explain import cover, mass_on_object, occlusion, pointing_game, relevance, rollout
from vit_walkthrough.train import init_model
from vit_walkthrough.weights import bundled, load_cued, load_tiny
from vit_walkthrough.weights.checkpoint import TINY

FILE = TINY / "maps.json"
COUNTS = [0, 1, 2, 3, 5, 9]  # of covered patches
# Each map is 0 or more (occlusion counts a rise as 0), and every map is treated in the same way before it is scored.
TREATED = {
    "raw": lambda maps: maps,
    "above its median": lambda maps: (maps - maps.median(-1, keepdim=True).values).clamp(min=0),
    "squared": lambda maps: maps**2,
}


def look(model, images):
    with record(model, "*.attention.weights") as trace:
        model(images)
    return trace.attention


def last_block(model, images):
    return look(model, images)[-1, :, :, 0, 1:].mean(dim=1)


def maps_of(model, images, classes=None, without=()):
    """Every map of these classes, by default of those that the model says; brightness has never met a model."""
    brightest = patchify(images.amax(dim=1, keepdim=True), model.config.patch_size)
    makers = {
        "last block": lambda: last_block(model, images),
        "rollout": lambda: rollout(look(model, images))[:, 0, 1:],
        "relevance": lambda: relevance(model, images, classes),
        "occlusion": lambda: occlusion(model, images, classes).clamp(min=0),
        "brightness": lambda: brightest.mean(dim=-1),
    }
    return {name: make() for name, make in makers.items() if name not in without}


def scores(maps, masks):
    """The mean of each score over the images; a map that is 0 everywhere counts as uniform."""
    mass = {f"mass, {name}": mass_on_object(treat(maps) + 1e-12, masks) for name, treat in TREATED.items()}
    every = mass | {"duels": duels(maps, masks), "strongest": pointing_game(maps, masks).float()}
    return {name: round(each.mean().item(), 4) for name, each in every.items()}


def strangers(model, count, first=1):
    return [init_model(model.config, ClutteredDigits("train"), seed=first + each).eval() for each in range(count)]


def duels(maps, masks):
    """The share of duels that patches on the object win, as exercise 1 of notebook 09 asks for it."""
    inside = patchify(masks[:, None].float(), masks.shape[-1] // math.isqrt(maps.shape[1])).mean(dim=-1) >= 0.5
    pairs = (inside[:, :, None] & ~inside[:, None]).float()
    won = ((maps[:, :, None] - maps[:, None]).sign() + 1) / 2
    return (won * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2))


def on_digits(model, dim_fragments=0.4, count=500, without=()):
    images, _, masks = ClutteredDigits("test", seed=1, dim_fragments=dim_fragments).sample(count, draw=0)
    found = {name: scores(maps, masks) for name, maps in maps_of(model, images, without=without).items()}
    return found | {"untrained": [scores(last_block(other, images), masks) for other in strangers(model, 8)]}


def on_cue(model, count=500):
    """What every map scores on the cue where it lies, beside brightness and eight untrained models."""
    images, labels, _, named, _ = PlantedCue("test", share=0, seed=1).planted(count, draw=0)
    masks = (images != ClutteredDigits("test", seed=1).sample(count, draw=0)[0]).any(dim=1)  # the cue alone
    said = model(images).argmax(-1)
    told = {"says the digit": said == labels, "says the cue": said == named}
    found = {name: scores(maps, masks) for name, maps in maps_of(model, images).items()}
    found |= {"untrained": [scores(last_block(other, images), masks) for other in strangers(model, 8)]}
    return found | {name: round(each.float().mean().item(), 4) for name, each in told.items()}


def likeness(one, other):
    """The rank correlation of two maps (Spearman, equal numbers share their rank), the mean over the images."""
    ranks = [(((maps[:, :, None] - maps[:, None]).sign() + 1) / 2).sum(-1) for maps in (one, other)]
    centred = [each - each.mean(-1, keepdim=True) for each in ranks]
    return round(torch.cosine_similarity(*centred, dim=-1).mean().item(), 4)


def randomised(model, images, count=5):
    """How like itself each map of what the model said stays while parts, from the top down, become a stranger's."""
    said = model(images).argmax(-1)
    own = maps_of(model, images, said)
    curves = {name: [] for name in (*own, "same answer") if name != "brightness"}
    for seed in range(count):
        rows = {name: [] for name in curves}
        for broken in broken_models(model, seed):
            now, same = maps_of(broken, images, said), (broken(images).argmax(-1) == said).float().mean().item()
            for name, row in rows.items():
                row.append(round(same, 4) if name == "same answer" else likeness(now[name], own[name]))
        curves = {name: [*curves[name], row] for name, row in rows.items()}
    beside = {name: likeness(maps, own["brightness"]) for name, maps in own.items() if name != "brightness"}
    return {"curves": curves, "like brightness": beside}


def hue_matters(model, count=5):
    images, _, masks, named, places = PlantedCue("test", share=0, seed=1).planted(200, draw=0)
    new_hue = plant(ClutteredDigits("test", seed=1).sample(200, draw=0)[0], masks, (named + 5) % 10, places)

    def changed(broken):
        return round((broken(images).argmax(-1) != broken(new_hue).argmax(-1)).float().mean().item(), 4)

    return [[changed(broken) for broken in broken_models(model, seed)] for seed in range(count)]


def broken_models(model, seed):
    """The model, then with more and more parts of an untrained one, from the top down. A fresh head would be zeros."""
    (stranger,), broken, head = strangers(model, 1, first=1 + seed), deepcopy(model), model.head.logits.weight
    lot = torch.randn(head.shape, generator=torch.Generator().manual_seed(seed))
    fresh = stranger.state_dict() | {"head.logits.weight": lot * head.std().item()}
    blocks = [(f"blocks.{block}.",) for block in reversed(range(model.config.depth))]
    for parts in ((), ("norm.", "head."), *blocks, ("",)):
        broken.load_state_dict({name: one for name, one in fresh.items() if name.startswith(parts)}, strict=False)
        yield broken


def one_patch(model, draws=20):
    """How often one covered patch mends a wrong answer, and breaks a right one; and mass on the digit for both."""
    counts = {"wrong": 0, "mended by some patch": 0, "right": 0, "broken by some patch": 0}
    patches, mass = {"wrong": [], "right": []}, {"wrong": [], "right": []}
    for draw in range(draws):
        images, labels, masks = ClutteredDigits("test", seed=1).sample(500, draw=draw)
        right = model(images).argmax(-1) == labels
        on_digit = mass_on_object(last_block(model, images), masks)
        for kind, chosen, some in (("wrong", ~right, "mended by some patch"), ("right", right, "broken by some patch")):
            mass[kind].append(on_digit[chosen])
            chosen = chosen.nonzero()[:, 0][: 100 if kind == "right" else None]  # of right ones there are enough
            if not len(chosen):
                continue
            after = [model(cover(images[chosen], [patch], 8)).argmax(-1) for patch in range(36)]
            changed = (torch.stack(after, dim=1) == labels[chosen, None]) == (kind == "wrong")
            counts[kind] += len(chosen)
            counts[some] += int(changed.any(-1).sum())
            patches[kind].append(changed.float().mean(-1))
    shares = {f"share of patches, {kind}": round(torch.cat(each).mean().item(), 4) for kind, each in patches.items()}
    return counts | shares | {f"mass, {kind}": round(torch.cat(each).mean().item(), 4) for kind, each in mass.items()}


def curve_of(model, images, maps, classes, what):
    """The probability of each image's class while its patches, the strongest of the map first, are "deleted" (covered
    with the image's median colour) or "inserted" (uncovered from it). Source: Petsiuk et al. 2018, arXiv 1806.07421."""
    rank = maps.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)  # 0 for the strongest patch
    probabilities = []
    for count in COUNTS:
        touched = repeat(rank < count, "batch (rows cols) -> batch 1 (rows ph) (cols pw)", rows=6, ph=8, pw=8)
        shown = torch.where(
            touched == (what == "inserted"), images, images.flatten(2).median(dim=-1).values[..., None, None]
        )
        probabilities.append(model(shown).softmax(-1).gather(1, classes[:, None])[:, 0])
    return torch.stack(probabilities, dim=1)


def covered_in_order(model, count=500):
    images, _, _ = ClutteredDigits("test", seed=1).sample(count, draw=0)
    said, maps = model(images).argmax(-1), maps_of(model, images)
    maps["untrained"] = last_block(strangers(model, 1)[0], images)
    maps["random"] = torch.rand(count, 36, generator=torch.Generator().manual_seed(0))
    found = {"counts": COUNTS}
    for what in ("deleted", "inserted"):
        curves = {name: curve_of(model, images, each, said, what) for name, each in maps.items()}
        found[what] = {name: [round(one, 4) for one in each.mean(0).tolist()] for name, each in curves.items()}
    return found


def measured():
    digits = ClutteredDigits("test", seed=1).sample(50, draw=0)[0]
    planted = PlantedCue("test", share=0, seed=1).sample(50, draw=0)[0]
    for size in bundled():
        name = f"p{size[0]} h{size[1]}"
        yield f"digits {name}", lambda size=size: on_digits(load_tiny(*size))
        loud = dict(dim_fragments=1.0, without=("occlusion",))
        yield f"digits {name}, loud fragments", lambda size=size, loud=loud: on_digits(load_tiny(*size), **loud)
    for seed in range(3):
        yield f"cue seed {seed}", lambda seed=seed: on_cue(load_cued(seed))
    yield "cue, seen by the hero", lambda: on_cue(load_tiny())
    yield "randomised, cue seed 0", lambda: randomised(load_cued(0), planted)
    yield "a new hue changes the answer", lambda: hue_matters(load_cued(0))
    yield "randomised, hero", lambda: randomised(load_tiny(), digits)
    yield "one patch", lambda: one_patch(load_tiny())
    yield "covered in order", lambda: covered_in_order(load_tiny())


@torch.no_grad()
@pytest.mark.parametrize("name", ["cue seed 1", "digits p16 h2"])
def test_an_entry_is_measured_again(name):
    assert json.loads(FILE.read_text(encoding="utf-8"))[name] == near(dict(measured())[name](), lambda value: 3e-3)


def near(value, margin):
    if isinstance(value, dict):
        return {str(name): near(one, margin) for name, one in value.items()}
    return [near(one, margin) for one in value] if isinstance(value, list) else pytest.approx(value, abs=margin(value))


@torch.no_grad()
def write(file, command, measured):
    found = {"command": command} | {name: measure() for name, measure in measured}
    lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(FILE, "python -m tests.nightly.test_maps", measured())
