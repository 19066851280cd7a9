"""How fast the package is, beside its peers, in one run: python tests/benchmark.py [section ...] [--rounds 15]

Whatever is compared takes turns, in a new random order in every round, so that a busy machine slows all of it alike.
A ratio is the median, over the rounds, of our time over the other's in the same round; its quartiles stand beside it.
"ours again" is a second instance of our model: how far its ratio is from 1 is the noise. With --threads 1 processor
time is measured instead of the clock's, for a machine that others use at the same time.
"""

import argparse
import base64
import gc
import inspect
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vit_walkthrough import Trace, VisionTransformer, ViTConfig, count_parameters, record
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train.loop import evaluate, fit

ROOT = Path(__file__).resolve().parents[1]
BASE = ViTConfig.named("B/16")
TINY = ViTConfig(image_size=48, patch_size=8, dim=64, depth=4, heads=4, hidden=256, classes=10)


@dataclass
class Row:
    """A line of the table: `measured`, a ratio or seconds, must be at most `bound`."""

    what: str
    ours: float
    other: str = ""
    its: float | None = None
    ratios: list[float] | None = None
    measured: float | None = None
    bound: float | None = None
    note: str = ""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@cache
def importable_peers() -> list[str]:
    """The peers that are here. A torchvision whose own operators do not load needs two of them declared first."""
    found = []
    for peer in ("transformers", "timm", "torchvision", "vit-pytorch"):
        package = peer.replace("-", "_")
        if find_spec(package) is None:
            log(f"{peer} is not installed: left out")
            continue
        try:
            import_module(package)
        except RuntimeError:
            importable_peers.library = torch.library.Library("torchvision", "DEF")  # lives as long as it is held
            for operator in ("nms", "qnms"):
                schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                importable_peers.library.define(schema)
            import_module(package)
        found.append(peer)
    return found


def build(name: str, config: ViTConfig, **options) -> nn.Module:
    """A model of the config's sizes, a peer's or ours, with a head that is not zero."""
    torch.manual_seed(0)
    size, patch, classes = config.image_size, config.patch_size, config.classes
    dim, depth, heads, hidden = config.dim, config.depth, config.heads, config.hidden
    if name == "transformers":
        peer = import_module("transformers")
        sizes = dict(hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=hidden)
        sizes |= dict(image_size=size, patch_size=patch, num_labels=classes, layer_norm_eps=1e-6)
        model = peer.ViTForImageClassification(peer.ViTConfig(**sizes, **options))
    elif name == "timm":
        peer = import_module("timm.models.vision_transformer")
        sizes = dict(embed_dim=dim, depth=depth, num_heads=heads, mlp_ratio=hidden / dim)
        model = peer.VisionTransformer(size, patch, num_classes=classes, **sizes)
    elif name == "torchvision":
        peer = import_module("torchvision.models")
        model = peer.VisionTransformer(size, patch, depth, heads, dim, hidden, num_classes=classes)
    elif name == "vit-pytorch":
        peer = import_module("vit_pytorch")  # no biases in qkv, two LayerNorms more: not quite as many parameters
        sizes = dict(dim=dim, depth=depth, heads=heads, dim_head=config.head_dim, mlp_dim=hidden)
        model = peer.ViT(image_size=size, patch_size=patch, num_classes=classes, **sizes)
    else:
        model = VisionTransformer(config)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert head.out_features == classes
    nn.init.trunc_normal_(head.weight, std=0.02)
    assert logits(model(random_images(config, 2))).shape == (2, classes)
    log(f"  {name}: {count_parameters(model):,} parameters")
    return model


def logits(output) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def random_images(config: ViTConfig, batch: int) -> Tensor:
    size = (batch, config.channels, config.height, config.width)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def take_turns(ways: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """The seconds that each way took in each round."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    names, shuffle, seconds = list(ways), random.Random(0).shuffle, {name: [] for name in ways}
    for lap in range(-2, rounds):  # two to warm up
        shuffle(names)
        gc.collect()
        gc.disable()
        for name in names:
            start = clock()
            ways[name]()
            if lap >= 0:
                seconds[name].append(clock() - start)
        gc.enable()
    return seconds


def compare(what: str, ways: dict[str, Callable], rounds: int, bound: float) -> Iterator[Row]:
    """A row for each way beside "ours", the fastest first; the bound holds against the fastest of the peers."""
    log(what)
    seconds = take_turns(ways, rounds)
    others = sorted(ways.keys() - {"ours"}, key=lambda name: median(seconds[name]))
    fastest = next((name for name in others if name in importable_peers()), None)
    for name in others:
        ratios = quantiles(mine / its for mine, its in zip(seconds["ours"], seconds[name], strict=True))
        limit = dict(measured=ratios[1], bound=bound, note="the fastest peer") if name == fastest else {}
        yield Row(what, median(seconds["ours"]), name, median(seconds[name]), ratios, **limit)


def matrix_products(model: nn.Module, config: ViTConfig, batch: int) -> Callable:
    """The plain limit: every matrix product of a forward pass, with the model's own matrices, and nothing else."""
    inputs = {width: torch.rand(batch, config.patches, width) for width in [config.patch_dim]}
    inputs |= {width: torch.rand(batch, config.tokens, width) for width in (config.dim, config.hidden)}
    queries = torch.rand(batch, config.heads, config.tokens, config.head_dim)
    keys = torch.rand(batch, config.heads, config.head_dim, config.tokens)
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]

    def run() -> None:
        for matrix in matrices[:-1]:  # the head's is one token's work
            F.linear(inputs[matrix.shape[1]], matrix)
        for _ in range(config.depth):
            queries @ keys @ queries

    return run


@torch.inference_mode()
def forward(rounds: int) -> Iterator[Row]:
    """B/16 at 224 pixels, nobody looking."""
    log("forward")
    models = {name: build(name, BASE).eval() for name in ("ours", "ours again", *importable_peers())}
    for batch, times in ((1, 4), (8, 1)):
        images = random_images(BASE, batch)
        ways = {name: partial(model, images) for name, model in models.items()}
        ways["the matrix products alone"] = matrix_products(models["ours"], BASE, batch)
        yield from compare(f"forward, batch {batch}", ways, rounds * times, 1.02)


@torch.inference_mode()
def attention(rounds: int) -> Iterator[Row]:
    """B/16 with the attention of all layers kept: as it comes, a tensor for each layer; and as one tensor."""
    log("attention")
    only = "*.attention.weights"
    model, again = build("ours", BASE).eval(), build("ours", BASE).eval()
    eager = None
    if "transformers" in importable_peers():
        eager = build("transformers", BASE, attn_implementation="eager").eval()

    def kept(model: nn.Module, images: Tensor, *patterns: str) -> Trace:
        with record(model, *patterns) as trace:
            model(images)
        return trace

    def theirs(images: Tensor) -> tuple[Tensor, ...]:
        return eager(images, output_attentions=True).attentions

    for batch, times in ((1, 4), (8, 1)):
        images = random_images(BASE, batch)
        layers = {
            "ours": partial(kept, model, images, only),
            "ours again": partial(kept, again, images, only),
            "ours, everything kept": partial(kept, model, images),
            "ours, nothing kept": partial(model, images),
        }
        one = {
            "ours": lambda images=images: kept(model, images, only).attention,
            "ours again": lambda images=images: kept(again, images, only).attention,
        }
        if eager:
            layers["transformers"] = one["transformers, as it comes"] = partial(theirs, images)
            one["transformers"] = lambda images=images: torch.stack(theirs(images))
            assert one["transformers"]().shape == one["ours"]().shape
        yield from compare(f"all attention, batch {batch}", layers, rounds * times, 1.0)
        yield from compare(f"all attention as one tensor, batch {batch}", one, rounds * times, 1.0)


def training(rounds: int) -> Iterator[Row]:
    """Forward, cross entropy, backward and AdamW."""
    log("training")
    images, labels = random_images(TINY, 128), torch.arange(128) % TINY.classes

    def stepper(model: nn.Module) -> Callable:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(logits(model(images)), labels).backward()
            optimizer.step()

        return step

    ways = {name: stepper(build(name, TINY).train()) for name in ("ours", "ours again", *importable_peers())}
    yield from compare("training step, batch 128", ways, rounds * 8, 1.02)


def import_time(rounds: int) -> Iterator[Row]:
    """In a process of its own each time; the first fills the disk's cache."""
    log("import")
    code = "from time import perf_counter as now; a = now(); import torch; b = now(); import vit_walkthrough; "
    command = [sys.executable, "-c", code + "print(b - a, now() - b)"]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(rounds + 1)]
    torch_alone, beyond = zip(*(map(float, run.stdout.split()) for run in runs[1:]), strict=True)
    yield Row("import, beyond torch", median(beyond), "torch", median(torch_alone), None, median(beyond), 0.3)


def positions(control, dice: random.Random) -> list[tuple[str, object]]:
    """Where a control can be put: every option, on and off, both ends and a place between, so that what was computed
    before is not all that is asked for."""
    if hasattr(control, "options"):
        return [("index", index) for index in range(len(control.options))]
    if isinstance(control.value, bool):
        return [("value", True), ("value", False)]
    low, high = control.min, control.max
    places = [low, high, dice.randint(low, high) if isinstance(low, int) else dice.uniform(low, high)]
    return [("value", control.base**place if hasattr(control, "base") else place) for place in places]


def leaves(name: str, control, *boxes) -> Iterator[tuple[str, object, tuple]]:
    """What can be turned of a control, which may consist of others: its name, itself, and all that it lies in."""
    for part in getattr(control, "children", ()):
        yield from leaves(f"{name}: {getattr(part, 'description', '')}", part, control, *boxes)
    if hasattr(control, "options") or hasattr(control, "min") or isinstance(getattr(control, "value", None), bool):
        yield name, control, (control, *boxes)


# In a process of its own: how long the load takes, and by how much it raises the peak of the memory in use.
LOAD = """
import importlib, re, sys, time, torch
torch.set_num_threads(int(sys.argv[2]))
sys.path[:0] = sys.argv[3:]
import benchmark

def memory(which):
    return 1024 * int(re.search(which + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

load = benchmark.loader(*sys.argv[1].split("|"))
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before, clock = memory("VmRSS"), time.process_time if sys.argv[2] == "1" else time.perf_counter
start = clock()
model = load()
seconds = clock() - start
assert benchmark.count_parameters(model) == 86_567_656
print(seconds, memory("VmHWM") - before)
"""


def loader(library: str, path: str) -> Callable:
    """What loads B/16 from a path, everything imported."""
    if library != "ours" or Path(path).is_dir():
        importable_peers()  # for the sake of torchvision, which the others import
        import_module("transformers.models.vit.modeling_vit")  # "transformers" alone does not import it
    if library == "timm":
        create_model = import_module("timm").create_model
        if Path(path).is_dir():
            return lambda: create_model(f"local-dir:{path}", pretrained=True)
        return lambda: create_model("vit_base_patch16_224", checkpoint_path=path)
    if library == "transformers":
        return partial(import_module("transformers").ViTForImageClassification.from_pretrained, path)
    weights = import_module("vit_walkthrough.weights")
    if Path(path).is_dir():
        return lambda: weights.load_pretrained(path).model
    return lambda: weights.convert_weights(weights.read_weights(path), "timm")


@torch.inference_mode()
def loading(rounds: int) -> Iterator[Row]:
    """B/16 from a file in the disk's cache, in time and memory; and whether the converted model is as fast."""
    log("loading")
    if "timm" not in importable_peers():
        return log("timm is not there: left out")
    convert_weights = import_module("vit_walkthrough.weights").convert_weights
    models = {name: build(name, BASE).eval() for name in importable_peers()}
    ours = convert_weights(models["timm"].state_dict(), "timm")
    size = 4 * count_parameters(ours)
    with tempfile.TemporaryDirectory() as folder:
        paths = {"timm, .safetensors": f"{folder}/vit.safetensors", "timm, .pth": f"{folder}/vit.pth"}
        save_file(models["timm"].state_dict(), paths["timm, .safetensors"])
        torch.save(models["timm"].state_dict(), paths["timm, .pth"])
        named = import_module("timm").create_model("vit_base_patch16_224")
        import_module("timm.models").save_for_hf(named, f"{folder}/timm", safe_serialization=True)
        ways = {f"ours{name[4:]}": f"ours|{path}" for name, path in paths.items()}
        ways |= {name: f"timm|{path}" for name, path in paths.items()}
        ways |= {f"{name}, folder of timm": f"{name}|{folder}/timm" for name in ("ours", "timm")}
        if "transformers" in models:
            models["transformers"].save_pretrained(f"{folder}/transformers")
            names = ("ours, folder of transformers", "transformers")
            ways |= {name: f"{name.split(',')[0]}|{folder}/transformers" for name in names}
        runs = {name: [] for name in ways}
        for lap in range(-1, max(3, rounds // 3)):  # one to warm up
            for name, way in ways.items():
                command = [
                    sys.executable,
                    "-c",
                    LOAD,
                    way,
                    str(torch.get_num_threads()),
                    str(ROOT / "tests"),
                    str(ROOT),
                ]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                if lap >= 0:
                    runs[name].append(tuple(map(float, done.stdout.split())))
    for name in ways:
        seconds, peaks = zip(*runs[name], strict=True)
        beyond = quantiles(peak / size - 1 for peak in peaks)
        note, theirs = "peak memory beyond the model, in weights", name.replace("ours", "timm")
        limit = dict(measured=beyond[1], bound=1.3) if name.startswith("ours") else {}
        yield Row(f"loading, {name}", median(seconds), "the weights' size", ratios=beyond, note=note, **limit)
        if name.startswith("ours") and theirs in runs:
            ratios = quantiles(mine[0] / its[0] for mine, its in zip(runs[name], runs[theirs], strict=True))
            its = median(run[0] for run in runs[theirs])
            yield Row(f"loading, {name}", median(seconds), theirs, its, ratios, ratios[1], 1.2)

    ways = {name: partial(model, random_images(BASE, 1)) for name, model in {"ours": ours, **models}.items()}
    yield from compare("forward of the converted B/16", ways, rounds * 4, 1.02)


def widgets(rounds: int) -> Iterator[Row]:
    """Every control of every panel is moved through its positions, in a random order: from the change to the moment at
    which the picture has changed. What trains does so at a button, which is no control; it is not pressed."""
    if find_spec("vit_walkthrough.widgets") is None:
        return log("widgets: not there, left out")
    content = (ROOT / "images" / "photos" / "coffee.jpg").read_bytes()
    for name, explore in inspect.getmembers(import_module("vit_walkthrough.widgets"), inspect.isfunction):
        if not name.startswith(("explore_", "train_")):
            continue
        log(name)
        panel, dice, arrived, seconds = explore(), random.Random(0), [], []
        for control in panel.controls.values():
            if hasattr(control, "file"):  # the reader's own picture is one of those that can be chosen
                control.file.value = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        parts = [leaf for key, control in panel.controls.items() for leaf in leaves(key, control)]
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        panel.picture.observe(lambda change, arrived=arrived, clock=clock: arrived.append(clock()), names="value")
        moved, still, lap = set(), 0, 0
        while lap < 20 and (lap < rounds // 5 or len(seconds) < 40 or len(moved) < len(parts)):
            for part, control, boxes in dice.sample(parts, len(parts)):
                for trait, position in dice.sample(places := positions(control, dice), len(places)):
                    if getattr(control, "disabled", False) or any(box.layout.display == "none" for box in boxes):
                        break  # no reader can turn it now
                    if getattr(control, trait) == position:
                        continue
                    arrived.clear()
                    start = clock()
                    setattr(control, trait, position)
                    moved.add(part)
                    if arrived:
                        seconds.append(arrived[0] - start)
                    else:
                        still += 1
            lap += 1
        late = quantiles(seconds, n=20)[-1]
        note = f"{len(seconds)} changes of {len(moved)} controls" + (f", {still} without effect" if still else "")
        missed = {part for part, _, _ in parts} - moved
        note += f", never moved: {', '.join(sorted(missed))}" if missed else ""
        usual = median(seconds)
        yield Row(f"{name}, change to picture", usual, measured=usual, bound=0.1, note=note)
        yield Row(f"{name}, 95th percentile", late, measured=late, bound=0.2)


def learning(rounds: int) -> Iterator[Row]:
    """What a reader does in 08: train on digits. And what drawing the digits takes of a step's time."""
    log("1,600 steps on digits")
    config, digits = ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10), ClutteredDigits("train")
    model, history = fit(config, digits, steps=1600, progress=False)
    accuracy = evaluate(model, ClutteredDigits("test"), 2000)
    measured = history.seconds if accuracy >= 0.9 else float("nan")
    note = f"{accuracy:.1%} of 2,000 test images right (at least 90%)"
    yield Row("08's training, 1,600 steps", history.seconds, measured=measured, bound=60, note=note)

    draws = []
    for draw in range(100):
        start = time.perf_counter()
        digits.sample(64, draw=draw)
        draws.append(time.perf_counter() - start)
    share = median(draws) / (history.seconds / 1600)
    note = f"{share:.0%} of a step (at most 20%)"
    yield Row("drawing 64 digits", median(draws), measured=median(draws), bound=0.2 * history.seconds / 1600, note=note)


def notebooks(rounds: int) -> Iterator[Row]:
    """Each executed once, from starting nbconvert and a kernel to the end."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        log(notebook.name)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder]
            start = time.perf_counter()
            done = subprocess.run([*command, str(notebook)], capture_output=True, text=True)
            taken = time.perf_counter() - start
        bound = {"08": 150, "09": 60, "10": 60}.get(notebook.name[:2], 20)
        measured = float("nan") if done.returncode else taken
        note = f"FAILED: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""
        yield Row(f"executing {notebook.stem}", taken, measured=measured, bound=bound, note=note)


SECTIONS = dict(forward=forward, attention=attention, training=training) | {"import": import_time}
SECTIONS |= dict(loading=loading, widgets=widgets, learning=learning, notebooks=notebooks)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def print_table(rows: list[Row]) -> None:
    lines, last = [["what", "ours", "beside", "its time", "ratio (quartiles)", "bound", "", ""]], ""
    for row in rows:
        what, ours = ("", "") if row.what == last else (row.what, duration(row.ours))
        ratio = "{1:.3f} ({0:.3f} to {2:.3f})".format(*row.ratios) if row.ratios else ""
        limit = verdict = ""
        if row.bound is not None:
            limit = f"{row.bound:.2f}" if row.ratios else duration(row.bound)
            verdict = "ok" if row.measured <= row.bound else "MISSED"
        lines.append([what, ours, row.other, duration(row.its), ratio, limit, verdict, row.note])
        last = row.what
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    if unknown := set(chosen.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; choose from {', '.join(SECTIONS)}")
    torch.set_num_threads(chosen.threads)
    rows = [row for name in chosen.sections or SECTIONS for row in SECTIONS[name](chosen.rounds)]
    print(f"torch {torch.__version__}, {chosen.threads} threads. Forward and attention: B/16 at 224 pixels.")
    print(f"Training: {TINY}")
    print("As many parameters in all models; vit-pytorch has no biases in qkv and two LayerNorms more.")
    print_table(rows)


if __name__ == "__main__":
    main()
