"""Training: a plain loop, and the same loop from the command line, on one process or several.

python -m vit_walkthrough.train.loop --patch-size 8 --heads 4
torchrun --nproc-per-node=2 -m vit_walkthrough.train.loop --patch-size 8 --heads 4
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.checkpoint import TINY, read_tensors, save_checkpoint, write_tensors

# The second moment remembers 20 steps and not 1,000, for a run has only some thousand.
adamw = partial(torch.optim.AdamW, betas=(0.9, 0.95))


@dataclass
class History:
    """What was measured at every step: the loss and the accuracy on the batch, before the step was taken."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Fitted(NamedTuple):
    """What `fit` returns: the trained model, in eval mode, and how it got there."""

    model: nn.Module
    history: History


def schedule(step: int, steps: int, warmup: float = 0.1) -> float:
    """The share of the learning rate at a step: up in a straight line for `warmup` of the steps, down in a cosine.

    Source: section 4.1 and B.1 (linear warm-up, cosine decay).
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def fit(
    config: ViTConfig | nn.Module,
    data,
    *,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.1,
    warmup: float = 0.1,
    clip: float = 1.0,
    seed: int = 0,
    optimizer: Callable = adamw,
    watch: Callable[[int, nn.Module, History], None] | None = None,
    progress: bool = True,
    accelerator=None,
    state: Path | None = None,
    save_every: int = 500,
) -> Fitted:
    """Train a model on `data.sample(batch_size, draw=step)` with AdamW, warm-up, cosine decay and gradient clipping.

    config: the model is built from it, from the seed; or any module from images to logits, trained where it stands.
    optimizer: called with the parameters, lr and weight_decay. watch: called with the step, the model and
    the history before every step. progress: a bar on standard output.
    accelerator: of the Accelerate library, for several processes; each takes its share of the same batches.
    state: a file in which the run is kept every `save_every` steps, and from which it goes on if it is there.

    The same seed gives the same model. An interruption from the keyboard ends the training, not the function: the
    model and its history are returned as far as they got. In eval mode, on the device that was used: a GPU if there
    is one.

    Raises: ValueError for steps or a batch_size below 1, data that do not fit the config, a state of another run or
    of one on other data.
    Source: section 4.1, B.1. Differs: AdamW for Adam, as in DeiT (arXiv 2012.12877), which suits small data.
    """
    if min(steps, batch_size, save_every) < 1:
        raise ValueError(f"steps {steps}, batch_size {batch_size} and save_every {save_every} must be at least 1")
    _check_fit(getattr(config, "config", config), data)
    model = init_model(config, data, seed) if isinstance(config, ViTConfig) else config
    share, count = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    if batch_size % count:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {count} processes; choose a multiple of {count}")
    device = accelerator.device if accelerator else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = model.to(device).train()
    optimizer = optimizer(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    run = dict(
        config=str(config),
        optimizer=str(optimizer),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    run |= dict(warmup=warmup, clip=clip, seed=seed)
    if state:
        run["data"] = _described(data)
    first, history = _resume(state, run, model, optimizer) if state else (0, History())
    if accelerator:
        trained, optimizer = accelerator.prepare(model, optimizer)
    started = time.perf_counter() - history.seconds

    quiet = not progress or share > 0
    bar = tqdm(range(first, steps), initial=first, total=steps, file=sys.stdout, disable=quiet, mininterval=0.5)
    try:
        for step in bar:
            if watch:
                watch(step, model, history)
            rate = learning_rate * schedule(step, steps, warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            images, labels, _ = data.sample(batch_size, draw=step)
            images, labels = images[share::count].to(device), labels[share::count].to(device)
            with _seeded((1_000_003 * seed + step) * count + share):  # dropout falls alike in a run that goes on
                logits = trained(images)
            loss = F.cross_entropy(logits, labels)
            accelerator.backward(loss) if accelerator else loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()

            measured = torch.stack([loss.detach(), (logits.argmax(-1) == labels).float().mean()])
            measured = accelerator.reduce(measured, "mean") if accelerator else measured
            history.loss.append(measured[0].item())
            history.accuracy.append(measured[1].item())
            history.learning_rate.append(rate)
            history.seconds = time.perf_counter() - started
            if step % 20 == 0:
                bar.set_postfix(loss=f"{history.loss[-1]:.3f}", accuracy=f"{history.accuracy[-1]:.0%}", refresh=False)
            if state and (step + 1) % save_every == 0 and share == 0:
                _keep(state, run, step + 1, model, optimizer, history)
    except KeyboardInterrupt:
        pass
    finally:
        bar.close()
    return Fitted(model.eval(), history)


@torch.no_grad()
def init_model(config: ViTConfig, data, seed: int = 0) -> VisionTransformer:
    """The untrained model that `fit` starts from.

    Its weights are larger than the normal numbers of 0.02 that timm and DeiT start with: at dim 64 those are so small
    that hardly anything is said in the first thousand steps. Xavier's, as in the authors' own code, and queries and
    keys twice as large again, so that attention has favourites to begin with (without, some seeds took 600 steps to
    take off); positions as loud as the patches; and a patch embedding that reads the pixels as if their mean were 0 and
    their standard deviation 1.
    """
    with _seeded(seed):
        model = VisionTransformer(config)
        _enlarge(model, data.sample(256, draw=0)[0])
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from the seed within the block; those of others, on every GPU too, go on as if it had not been."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # for manual_seed seeds them all
        torch.manual_seed(seed)
        yield


def _enlarge(model: VisionTransformer, images: torch.Tensor) -> None:
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    for block in model.blocks:
        block.attention.qkv.weight[: 2 * model.config.dim] *= 2
    embedding = model.patch_embedding.projection
    nn.init.xavier_uniform_(embedding.weight)
    embedding.weight /= images.std().clamp(min=1e-3)  # were all the images black
    embedding.bias -= images.mean() * embedding.weight.sum(dim=1)
    if model.config.positions == "learned":
        nn.init.trunc_normal_(model.position_embedding.positions, std=0.4)


def _check_fit(config, data) -> None:
    if not isinstance(config, ViTConfig):
        return  # another kind of module says itself what it cannot read
    images, labels, _ = data.sample(256, draw=0)
    if tuple(images.shape[1:]) != (config.channels, config.height, config.width):
        raise ValueError(
            f"the data's images are {tuple(images.shape[1:])} (channels, height, width), but the config says "
            f"{(config.channels, config.height, config.width)}"
        )
    if isinstance(getattr(data, "labels", None), torch.Tensor):
        labels = data.labels  # all there are: a rare one may be missing from a sample
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < config.classes:
            raise ValueError(f"label {label} is out of range for {config.classes} classes, 0 to {config.classes - 1}")


def _described(data) -> str:
    """What tells these data from others, in so few digits that the rounding of another processor does not show."""
    images, labels, _ = data.sample(256, draw=0)
    images = images.float()
    return f"mean {images.mean():.4f}, deviation {images.std():.4f}, labels {labels[:32].tolist()}"


def _keep(state: Path, run: dict, step: int, model: nn.Module, optimizer, history: History) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": torch.as_tensor(moment) for name, moment in moments.items()}
    write_tensors(state, tensors, run=run, step=step, history=asdict(history))


def _resume(state: Path, run: dict, model: nn.Module, optimizer) -> tuple[int, History]:
    if not Path(state).exists():
        return 0, History()
    tensors, facts = read_tensors(state)
    if facts.get("run") != run:
        raise ValueError(f"{state} is the state of another run ({facts.get('run')}); delete it or name another file")
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    moments: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return facts["step"], History(**facts["history"])


@torch.inference_mode()
def evaluate(model: nn.Module, data, count: int = 2000) -> float:
    """The share of `count` images that the model names right; always the same images for the same data.

    Raises: ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    training, device = model.training, next(model.parameters()).device
    model.eval()
    right = 0
    try:
        size = min(250, count)  # always as many: a fixed set is gone through only by draws of one size
        for draw, start in enumerate(range(0, count, size)):
            images, labels, _ = data.sample(size, draw=draw)
            images, labels = images[: count - start], labels[: count - start]
            right += int((model(images.to(device)).argmax(-1).cpu() == labels).sum())
    finally:
        model.train(training)
    return right / count


def main(arguments: list[str] | None = None) -> None:
    """Train one tiny ViT on ClutteredDigits, measure it on 2,000 test images and save it with its scores."""
    parser = argparse.ArgumentParser(prog="python -m vit_walkthrough.train.loop", description=main.__doc__)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64, help="over all processes together")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a .safetensors file; by default among the package's checkpoints")
    parser.add_argument("--losses", type=int, default=0, help="print the losses of the first so many steps")
    chosen = parser.parse_args(arguments)
    output = chosen.output or TINY / f"tiny_p{chosen.patch_size}_h{chosen.heads}.safetensors"
    if output.suffix != ".safetensors":
        parser.error(f"--output {output} does not end in .safetensors")

    from accelerate import Accelerator  # only here: the loop itself does without

    # Unless told, Accelerate takes torchrun's processes on a machine without a GPU for so many separate runs.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    config = ViTConfig(
        48, chosen.patch_size, dim=chosen.dim, depth=chosen.depth, heads=chosen.heads, hidden=2 * chosen.dim, classes=10
    )
    state = output.with_suffix(".partial")
    recipe = dict(
        steps=chosen.steps, batch_size=chosen.batch_size, learning_rate=chosen.learning_rate, seed=chosen.seed
    )
    model, history = fit(config, ClutteredDigits("train"), **recipe, accelerator=accelerator, state=state)
    if accelerator.is_main_process:
        if chosen.losses:
            print("losses", *(f"{loss:.6f}" for loss in history.loss[: chosen.losses]))
        if len(history.loss) < chosen.steps:
            print(f"stopped after {len(history.loss)} steps; the same command goes on from the last saved one")
            return
        model.half().float()  # what half the bytes can hold; it is measured as it will be read back
        accuracy = evaluate(model, ClutteredDigits("test"), 2000)
        save_checkpoint(output, model.half(), **recipe, test_accuracy=accuracy, test_images=2000)
        state.unlink(missing_ok=True)
        print(f"{output.name}: {accuracy:.1%} of 2,000 test images right, after {history.seconds:.0f} s")
    accelerator.end_training()


if __name__ == "__main__":
    main()
