"""How fast the package is, beside its peers, in one run: python tests/benchmark.py [section ...] [--rounds 15]

Whatever is compared takes turns, in a new random order in every round, so that a busy machine slows all of it alike.
A ratio is the median, over the rounds, of our time over the other's in the same round; its quartiles stand beside it.
"ours again" is a second instance of our model: how far its ratio is from 1 is the noise. With --threads 1 processor
time is measured instead of the clock's, for a machine that others use at the same time.
"""

import argparse
import contextlib
import gc
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from statistics import median, quantiles
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.exercises.answers import RIGHT  # noqa: E402
from tests.peers.libraries import build_peer, import_peer  # noqa: E402
from tests.widgets.panels import PANELS, address, ends, leaves  # noqa: E402
from vit_walkthrough import VisionTransformer, ViTConfig, count_parameters, exercises  # noqa: E402
from vit_walkthrough.data import ClutteredDigits  # noqa: E402
from vit_walkthrough.living import live  # noqa: E402
from vit_walkthrough.living.page import ROOM  # noqa: E402
from vit_walkthrough.train import loop  # noqa: E402
from vit_walkthrough.train.loop import evaluate, train_step  # noqa: E402
from vit_walkthrough.train.optimizers import adamw  # noqa: E402
from vit_walkthrough.weights import convert_weights, load_pretrained, load_tiny  # noqa: E402

BASE = ViTConfig.named("B/16")
TINY = ViTConfig(image_size=48, patch_size=12, dim=64, depth=4, heads=4, hidden=128, classes=10)


@dataclass
class Row:
    """A line of the table: `measured`, a ratio or seconds, must be at most `bound`."""

    what: str
    ours: float
    measured: float | None = None
    bound: float | None = None
    other: str = ""
    its: float | None = None
    ratios: list[float] | None = None
    note: str = ""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(action: Callable, *arguments) -> float:
    start = clock()
    action(*arguments)
    return clock() - start


@cache
def peers() -> list[str]:
    """Those that are here. vit-pytorch has no biases in qkv and two LayerNorms more: not quite as many parameters."""
    found = []
    for name in ("transformers", "timm", "torchvision", "vit_pytorch"):
        try:
            import_peer(name)
            found.append(name)
        except ImportError:
            log(f"{name} cannot be imported: left out")
    return found


def build(name: str, config: ViTConfig) -> nn.Module:
    torch.manual_seed(0)
    model = build_peer(name, config) if name in peers() else VisionTransformer(config)
    log(f"  {name}: {count_parameters(model):,} parameters")
    return model


def random_images(config: ViTConfig, batch: int) -> Tensor:
    return torch.rand(batch, config.channels, config.height, config.width, generator=torch.Generator().manual_seed(0))


def compare(what: str, ways: dict[str, Callable], rounds: int, bound: float) -> Iterator[Row]:
    """A row for each way beside "ours", the fastest first; the bound holds against the fastest of the peers."""
    names, shuffle, seconds = list(ways), random.Random(0).shuffle, {name: [] for name in ways}
    for lap in range(-2, rounds):  # two to warm up
        shuffle(names)
        gc.collect()
        gc.disable()
        for name in names:
            taken = timed(ways[name])
            seconds[name] += [taken] if lap >= 0 else []
        gc.enable()
    others = sorted(ways.keys() - {"ours"}, key=lambda name: median(seconds[name]))
    fastest = next((name for name in others if name in peers()), None)
    for name in others:
        ratios = quantiles(mine / its for mine, its in zip(seconds["ours"], seconds[name], strict=True))
        limit = dict(measured=ratios[1], bound=bound, note="the fastest peer") if name == fastest else {}
        yield Row(what, median(seconds["ours"]), other=name, its=median(seconds[name]), ratios=ratios, **limit)


@torch.inference_mode()
def forward(rounds: int) -> Iterator[Row]:
    models = {name: build(name, BASE).eval() for name in ("ours", "ours again", *peers())}
    for batch, times in ((1, 4), (8, 1)):
        ways = {name: partial(model, random_images(BASE, batch)) for name, model in models.items()}
        yield from compare(f"forward of B/16, batch {batch}", ways, rounds * times, 1.02)


@torch.inference_mode()
def loading(rounds: int) -> Iterator[Row]:
    """B/16 from files in the disk's cache, everything imported; and whether the converted model is as fast."""
    if "timm" not in peers():
        return log("timm is not there: left out")
    create_model = partial(import_peer("timm").create_model, "vit_base_patch16_224")
    theirs = create_model()
    with tempfile.TemporaryDirectory() as folder:
        import_peer("timm.models").save_for_hf(theirs, folder, safe_serialization=True)  # model.safetensors, and what
        torch.save(theirs.state_dict(), pickled := f"{folder}/vit.pth")  # load_pretrained and local-dir read beside it
        for path, read in ((f"{folder}/model.safetensors", load_file), (pickled, partial(torch.load, mmap=True))):
            ways = {"ours": lambda path=path, read=read: convert_weights(read(path), "timm")}
            ways["timm"] = partial(create_model, checkpoint_path=path)
            yield from compare(f"loading B/16 from {path[path.rindex('.') :]}", ways, max(3, rounds // 3), 1.2)
        ways = {"ours": partial(load_pretrained, folder)}
        ways["timm"] = partial(import_peer("timm").create_model, f"local-dir:{folder}", pretrained=True)
        yield from compare("loading B/16 from a folder", ways, max(3, rounds // 3), 1.2)
    ways = {"ours": partial(convert_weights(theirs, "timm"), random_images(BASE, 1))}
    ways["timm"] = partial(theirs.eval(), random_images(BASE, 1))
    yield from compare("forward of the converted B/16", ways, rounds * 4, 1.02)


def import_time(rounds: int) -> Iterator[Row]:
    """In a process of its own each time; the first fills the disk's cache."""
    code = "from time import perf_counter as now; a = now(); import torch; b = now(); import vit_walkthrough; "
    command = [sys.executable, "-c", code + "print(b - a, now() - b)"]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
    torch_alone, beyond = zip(*(map(float, run.stdout.split()) for run in runs[1:]), strict=True)
    yield Row("import, beyond torch", median(beyond), median(beyond), 0.3, other="torch", its=median(torch_alone))


def places(control, dice: random.Random) -> list:
    """Every option; or both ends and a place between, so that what was computed before is not all that is asked for."""
    found = ends(control)
    if hasattr(control, "min"):
        low, high = found
        found.append(dice.randint(low, high) if isinstance(low, int) else dice.uniform(low, high))
    return dice.sample(found, len(found))


def panels(rounds: int) -> Iterator[Row]:
    """Every control of every panel is moved through its places, in a random order: from the change to the moment at
    which the picture has changed. What trains does so at a button, which is no control; it is not pressed."""
    own = address((ROOT / "images" / "photos" / "coffee.jpg").read_bytes(), "image/jpeg")
    # Not `clock`, which goes by the number of threads: a panel draws with one.
    tick = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for name, explore in PANELS.items():
        log(f"  {name}")
        panel, dice, arrived, seconds, still = explore(), random.Random(0), [], [], 0
        if chooser := panel.controls.get("chosen"):  # the reader's own picture is one of those that can be chosen
            chooser.file.value = own
        panel.picture.observe(lambda change, arrived=arrived: arrived.append(tick()), names="value")
        controls, lap = list(leaves(panel).values()), 0
        while lap < 20 and (lap < rounds // 5 or len(seconds) < 40):
            for control in dice.sample(controls, len(controls)):
                for place in places(control, dice):
                    if control.disabled or control.value == place:
                        continue
                    arrived.clear()
                    start = tick()
                    control.value = place
                    seconds += [arrived[0] - start] if arrived else []
                    still += not arrived
            lap += 1
        late, note = quantiles(seconds, n=20)[-1], f"{len(seconds)} changes, {still} without effect"
        yield Row(f"{name}, change to picture", median(seconds), median(seconds), 0.05, note=note)
        yield Row(f"{name}, 95th percentile", late, late, 0.12)


def learning(rounds: int) -> Iterator[Row]:
    """A step of `fit` beside the same step of peers of the same size; what drawing its digits takes of it; and how soon
    three runs by the recipe and three by the one before (AdamW, half the batch, a cosine) know nine digits in ten."""
    digits = ClutteredDigits("train")
    images, labels, _ = digits.sample(128, draw=0)
    ways = {}
    for name in ("ours", "ours again", *(name for name in peers() if name in ("timm", "transformers"))):
        model = build(name, TINY).train()
        if name in peers():  # transformers gives an object that holds its logits
            model.register_forward_hook(lambda _, images, given: getattr(given, "logits", given))
        ways[name] = partial(train_step, model, adamw(model), images, labels)
    yield from compare("a step on 128 digits", ways, 10 * rounds, 1.05)
    both = ways["ours"], partial(digits.sample, 128)
    step, drawing = (median(timed(way) for _ in range(10 * rounds)) for way in both)
    yield Row("drawing 128 digits", drawing, drawing, 0.2 * step, note=f"{drawing / step:.0%} of a step (at most 20%)")
    for seed in range(3):
        (steps, seconds, wrong), before = learn(seed), learn(seed, **BEFORE)
        share = [steps / before[0]] * 3
        note = f"{steps} steps, {before[0]} before; {1 - wrong:.1%} at the end, {1 - before[2]:.1%} before"
        yield Row(f"seed {seed}, 90% on validation", seconds, share[0], 0.5, "before", before[1], share, note)
        yield Row(f"seed {seed}, share wrong at the end", seconds, wrong, 0.04, ratios=[wrong] * 3)


BEFORE = dict(steps=1600, batch_size=64, learning_rate=3e-3, weight_decay=0.1, warmup=0.1, optimizer=adamw)


def learn(seed: int, **recipe) -> tuple[int, float, float]:
    """Train TINY: the steps and the seconds until 90% on validation, asked every 50 steps, which takes a part of the
    seconds, and the share that is wrong at the end. The old recipe fell in a cosine."""

    def cosine(step: int, steps: int, warmup: float) -> float:
        rising = round(warmup * steps)
        return min((step + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * max(0, step - rising) / (steps - rising)))

    def watch(step: int, model: nn.Module, history: loop.History) -> None:
        if step % 50 == 0 and not reached and evaluate(model, validation, 1000) >= 0.9:
            reached.extend((step, clock() - start))

    reached, validation, start = [], ClutteredDigits("validation"), clock()
    with mock.patch.object(loop, "schedule", cosine if recipe else loop.schedule):
        model = loop.fit(TINY, ClutteredDigits("train"), seed=seed, watch=watch, progress=False, **recipe).model
    log(f"  seed {seed}, {'before' if recipe else 'ours'}: {reached}")
    return *(reached or (10**9, clock() - start)), 1 - evaluate(model, validation, 2000)


# Puts the milliseconds that each drawing takes, once its frame has come, into `spent`.
SPY = """window.spent = []; const real = requestAnimationFrame;
window.requestAnimationFrame = (draw) => real((time) => {
  const start = performance.now(); draw(time); spent.push(performance.now() - start); });"""
FORWARD = """([module, data]) => {
  const { forward, inFull, decode } = new Function(module + "; return { forward, inFull, decode }")();
  const { weights, config } = decode(JSON.parse(data)), full = inFull(weights);
  const image = new Float32Array(3 * 48 * 48).map(Math.random), spent = [[], []];
  const roots = () => { let sum = 0; for (let one = 0; one < 3e6; one++) sum += Math.sqrt(one); return sum; };
  for (let time = 0; time < 120; time++)
    for (const [at, act] of [() => forward(full, config, image), roots].entries()) {
      const start = performance.now();
      act();
      spent[at].push((performance.now() - start) / 1000);
    }
  return spent.map((all) => all.slice(20)); }"""


def pictures(rounds: int) -> Iterator[Row]:
    """The model in Chromium, beside three million square roots, and the pictures that compute it: from a pointer's move
    or drag, once its frame has come, to the picture; also on a processor four times slower, as a phone's."""
    playwright = import_module("playwright.sync_api")
    image, hero = ClutteredDigits("test").sample(1, draw=0)[0][0], load_tiny(8, 4)
    module = "".join((ROOM / file).read_text(encoding="utf-8").replace("export ", "") for file in ("vit.js", "view.js"))
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for slower, bounds in ((1, (0.010, 0.016, 0.033)), (4, (None, 0.1, 0.1))):
            for name in ("attention", "cover", "order", "stream"):
                picture, page = live(name, hero, image), browser.new_page()
                page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
                page.add_init_script(SPY)
                page.goto("about:blank")
                page.set_content(picture.html)
                page.locator(".vit-alive").wait_for()
                if name == "attention":
                    mine, its = page.evaluate(FORWARD, [module, picture.payload])
                    ratios = quantiles(one / other for one, other in zip(mine, its, strict=True))
                    row = Row(f"forward, {slower} times slower", median(mine), median(mine), bounds[0], "3e6 roots")
                    yield replace(row, its=median(its), ratios=ratios)
                box = page.locator(".vit-points, .vit-alive").last.bounding_box()
                for act in ("pointer", "drag")[: 2 if name in ("cover", "order") else 1]:
                    page.evaluate("spent.length = 0")
                    for lap in range(10 * rounds):
                        across, down = random.random() * box["width"], random.random() * box["height"]
                        page.mouse.move(box["x"] + across, box["y"] + down)
                        if act == "drag" and not lap:
                            page.mouse.down()
                        page.wait_for_timeout(20)
                    page.mouse.up()
                    spent = [one / 1000 for one in page.evaluate("spent")]
                    what, late = f"{name}, {act} to picture, {slower} times slower", quantiles(spent, n=20)[-1]
                    bound = bounds[2] if act == "drag" else bounds[1]
                    yield Row(what, median(spent), median(spent), bound, note=f"{len(spent)} drawings")
                    yield Row(f"{name}, {act}, 95th percentile", late, late, None if act == "drag" else bounds[2])
                page.close()


def every_check(rounds: int) -> Iterator[Row]:
    for name, answer in RIGHT.items():
        check, seconds = getattr(exercises, f"check_{name}"), []
        for _ in range(rounds):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                seconds.append(timed(check, answer))
        yield Row(f"check_{name}", median(seconds), median(seconds), 0.05)


SECTIONS = {"forward": forward, "loading": loading, "import": import_time, "widgets": panels, "pictures": pictures}
SECTIONS |= {"learning": learning, "exercises": every_check}


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def print_table(rows: list[Row]) -> None:
    lines = [["what", "ours", "beside", "its time", "ratio (quartiles)", "bound", "", ""]]
    for row in rows:
        ratio = "{1:.3f} ({0:.3f} to {2:.3f})".format(*row.ratios) if row.ratios else ""
        limit = verdict = ""
        if row.bound is not None:
            limit = f"{row.bound:.2f}" if row.ratios and row.measured != row.ours else duration(row.bound)
            verdict = "ok" if row.measured <= row.bound else "MISSED"
        lines.append([row.what, duration(row.ours), row.other, duration(row.its), ratio, limit, verdict, row.note])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=SECTIONS, help="default: all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    rows = []
    for name in chosen.sections or SECTIONS:
        log(name)
        rows += SECTIONS[name](chosen.rounds)
    print(f"torch {torch.__version__}, {chosen.threads} threads")
    print_table(rows)


if __name__ == "__main__":
    main()
