"""vit.js in Node, which playwright brings along: what it computes, as arrays beside torch's."""

import copy
import json
import subprocess
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import vit_walkthrough.living
from vit_walkthrough import record
from vit_walkthrough.living.page import packed
from vit_walkthrough.look.intervene import intervene
from vit_walkthrough.weights.checkpoint import in_eight_bits, in_full

ROOM = Path(vit_walkthrough.living.__file__).parent
SCRIPT = """
import fs from "node:fs";
import { forward } from "ROOM/vit.js";
import { decode, inFull } from "ROOM/view.js";
const job = JSON.parse(fs.readFileSync(process.argv[2]));
const weights = inFull(decode(job.weights)), images = decode(job.images), size = images.length / images.shape[0];
const out = fs.openSync(process.argv[3], "w");
for (const options of job.cases)
  for (let image = 0; image < images.shape[0]; image++) {
    const trace = forward(weights, job.config, images.slice(image * size, (image + 1) * size), options);
    const kept = [...trace].filter(([name]) => name.endsWith(job.ending));
    if (!image) console.log(JSON.stringify(Object.fromEntries(kept.map(([name, tensor]) => [name, tensor.length]))));
    for (const [, tensor] of kept) fs.writeSync(out, Buffer.from(Float32Array.from(tensor).buffer));
  }
"""


def eight_bit(model):
    model = copy.deepcopy(model)
    model.load_state_dict(in_full(in_eight_bits(model.state_dict())))
    return model


def in_node(model, images, cases: list[dict], folder: Path, ending: str = "") -> list[dict[str, np.ndarray]]:
    """What vit.js computes for each case of options: name -> (images, numbers), of names with this ending."""
    driver = pytest.importorskip("playwright._impl._driver", reason="no playwright", exc_type=ImportError)
    job = {"weights": in_eight_bits(model.state_dict()), "config": asdict(model.config), "cases": cases}
    (folder / "job.json").write_text(json.dumps(job | {"images": images, "ending": ending}, default=packed))
    (folder / "script.mjs").write_text(SCRIPT.replace("ROOM", ROOM.as_uri()))
    files = [folder / name for name in ("script.mjs", "job.json", "out")]
    command = [driver.compute_driver_executable()[0], "--no-warnings", *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not run.returncode, run.stderr
    numbers, found = np.fromfile(folder / "out", np.float32), []
    for line in run.stdout.splitlines():  # for each case the names and lengths of its tensors
        sizes = json.loads(line)
        case, numbers = np.split(numbers, [len(images) * sum(sizes.values())])
        parts = np.split(case.reshape(len(images), -1), np.cumsum([*sizes.values()])[:-1], axis=1)
        found.append(dict(zip(sizes, parts, strict=True)))
    assert not len(numbers)
    return found


def differences(model, images, cases: list[dict], folder: Path, ending: str = "") -> list[dict[str, float]]:
    """For each case the largest difference between vit.js and torch, by the last part of the tensors' names."""
    found, model = [], eight_bit(model)
    for case, here in zip(cases, in_node(model, images, cases, folder, ending), strict=True):
        with torch.no_grad(), intervene(model, **case), record(model) as trace:
            model(images)
        assert list(here) == [name for name in trace if name.endswith(ending)]
        worst: dict[str, float] = defaultdict(float)
        for name, tensor in here.items():
            kind, gap = name.rpartition(".")[2], abs(tensor - trace[name].flatten(1).numpy()).max()
            worst[kind] = max(worst[kind], float(gap))
        found.append(worst)
    return found
