"""The training loop: what a step is, how the learning rate changes, where the weights start."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.optimizers import muon

RECIPE = 2  # the version of init_model and of fit's defaults: what was trained by another cannot be compared


@dataclass
class History:
    """What was measured at every step: the loss and the accuracy on the batch, before the step was taken."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)


class Fitted(NamedTuple):
    """What `fit` returns: the trained model, in eval mode, and its history."""

    model: nn.Module
    history: History


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from the seed within the block. The global random generators are left untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # manual_seed seeds every GPU too
        torch.manual_seed(seed)
        yield


def best_device() -> torch.device:
    """The GPU (of whatever maker) if torch finds one, else the processor."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Gradients are on and autocast is off within the block, whatever surrounds it."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast(best_device().type, enabled=False),
    ):
        yield


def schedule(step: int, steps: int, warmup: float = 0.03) -> float:
    """The share of the learning rate at a step: it rises in a line for `warmup` of the steps, then falls in a line
    (section 4.1)."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 1 - (step - rising) / max(1, steps - rising)


def set_rates(optimizer: Optimizer, share: float) -> None:
    """Give every group of parameters this share of the learning rate that it was made with."""
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("initial_lr", group["lr"])


@torch.no_grad()
def init_model(config: ViTConfig, data, seed: int = 0) -> VisionTransformer:
    """The untrained model that `fit` starts from.

    timm and DeiT start with normal numbers of 0.02, with which a model of dim 64 learns almost nothing in its first
    thousand steps. Here matrices start with Xavier's numbers, as in the authors' own code. Queries and keys are twice
    as large, so that attention has favourites from the start (without this, some seeds took 600 steps). Positions are
    half as large as the patches, and the embedding reads pixels as if their mean were 0 and their standard deviation 1.
    """
    with seeded(seed):
        model = VisionTransformer(config)
        images = data.sample(256, draw=0)[0]
        for module in model.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for block in model.blocks:
            block.attention.qkv.weight[: 2 * config.dim] *= 2
        embedding = model.patch_embedding.projection
        nn.init.xavier_uniform_(embedding.weight)
        embedding.weight /= images.std().clamp(min=1e-3)  # all images may be black
        embedding.bias -= images.mean() * embedding.weight.sum(dim=1)
        if config.positions == "learned":
            nn.init.trunc_normal_(model.position_embedding.positions, std=0.4)
    return model


def train_step(
    model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor, *, seed: int
) -> Float[Tensor, "2"]:
    """One step of gradient descent. Returns the loss and the accuracy on the batch, as they were before the step.

    labels: class numbers (batch), or probabilities (batch classes). Only parameters that the optimizer holds get
    gradients and count in the norm that is clipped. seed: of dropout.

    Raises: ValueError if nothing can learn; FloatingPointError for a gradient that is not finite, before a step.
    """
    held = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
    if not held:
        raise ValueError("the optimizer holds no parameter that can learn; set requires_grad of some to True")
    with seeded(seed):
        logits = model(images)
    loss = F.cross_entropy(logits, labels if labels.is_floating_point() else labels.long())
    loss.backward(inputs=held)
    if not nn.utils.clip_grad_norm_(held, 1.0).isfinite():
        rate = optimizer.param_groups[0]["lr"]
        told = f"the loss is {loss.item():.4g} and its gradient is not finite, at a learning rate of {rate:.3g}"
        raise FloatingPointError(f"{told}; choose a smaller learning rate, and check that the images are finite")
    optimizer.step()
    optimizer.zero_grad()
    classes = labels.argmax(-1) if labels.is_floating_point() else labels
    return torch.stack([loss.detach(), (logits.argmax(-1) == classes).float().mean()])


@plain_torch()
def fit(
    config: ViTConfig | nn.Module,
    data,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    weight_decay: float = 0.5,
    warmup: float = 0.03,
    seed: int = 0,
    optimizer: Callable[[nn.Module, float, float], Optimizer] = muon,
    watch: Callable[[int, nn.Module, History], None] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a model on `data.sample(batch_size, draw=step)`, with warm-up, linear decay and gradient clipping.

    config: the model is built from it and the seed. A module from images to logits is trained in place instead.
    optimizer: a function of the model, the learning rate and the weight decay, such as train.optimizers.adamw. watch:
    called before every step with the step, the model and the history. progress: shows a bar on standard output.

    The same seed gives the same model. An interruption from the keyboard ends the training early. The model is in eval
    mode, on a GPU if there is one.

    Raises: ValueError for steps or a batch_size below 1, data that do not fit the model, and weights of less than 32
    bits; TypeError for data without `sample`; FloatingPointError for a loss or weights that explode.
    Source: section 4.1, B.1. Differs: Muon and AdamW for Adam, with which small ViTs learn sooner.
    """
    if min(steps, batch_size) < 1:
        raise ValueError(f"steps is {steps} and batch_size is {batch_size}; both must be at least 1")
    _check_data(data)
    model = init_model(config, data, seed) if isinstance(config, ViTConfig) else config
    _check_fit(model, data)
    device, history = best_device(), History()
    model.to(device).train()
    model.zero_grad()  # the model may come with gradients
    chosen = optimizer(model, learning_rate, weight_decay)

    bar = tqdm(range(steps), file=sys.stdout, disable=not progress, mininterval=0.5)
    with bar, suppress(KeyboardInterrupt):
        for step in bar:
            if watch:
                watch(step, model, history)
            set_rates(chosen, schedule(step, steps, warmup))
            images, labels = (part.to(device) for part in data.sample(batch_size, draw=step)[:2])
            measured = train_step(model, chosen, images, labels, seed=1_000_003 * seed + step)
            loss, accuracy = measured.tolist()
            history.loss.append(loss)
            history.accuracy.append(accuracy)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.0%}", refresh=False)
    if not nn.utils.get_total_norm(model.parameters()).isfinite():
        raise FloatingPointError(f"weights have grown without bound; choose a rate smaller than {learning_rate:.3g}")
    return Fitted(model.eval(), history)


@plain_torch()
@torch.inference_mode()
def evaluate(model: nn.Module, data, count: int = 2000) -> float:
    """The share of `count` images that the model names right. The images are always the same for the same data. Raises:
    ValueError for a count below 1; TypeError for data without `sample`."""
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    _check_data(data)
    training, device, right = model.training, next(model.parameters()).device, []
    model.eval()
    try:
        size = min(250, count)  # always the same size: draws of one size go through a fixed set without repeating
        for draw in range(math.ceil(count / size)):
            images, labels = data.sample(size, draw=draw)[:2]
            right.append(model(images.to(device)).argmax(-1).cpu() == labels)
    finally:
        model.train(training)
    return torch.cat(right)[:count].sum().item() / count


def _check_data(data) -> None:
    if not hasattr(data, "sample"):
        told = f"data is a {type(data).__name__} without the method sample(count, draw=number)"
        raise TypeError(f"{told}; vit_walkthrough.train.finetune.Pictures(images, labels) gives it to images")


def _check_fit(model: nn.Module, data) -> None:
    if low := {parameter.dtype for parameter in model.parameters()} & {torch.float16, torch.bfloat16}:
        raise ValueError(f"the model has {low.pop()} weights; training needs 32 bits: call model.float() first")
    labels = data.sample(256, draw=0)[1]
    if isinstance(getattr(data, "labels", None), Tensor):
        labels = data.labels  # all of them: a rare one may be missing from a sample
    if labels.ndim != 1 + labels.is_floating_point():
        told = f"labels are {labels.dtype} of shape {tuple(labels.shape)}"
        raise ValueError(f"{told}; give one class number per image, or as floats one probability per class")
    config = getattr(model, "config", None)
    if isinstance(config, ViTConfig) and labels.ndim == 1 and not 0 <= labels.min() <= labels.max() < config.classes:
        told = f"labels go from {labels.min()} to {labels.max()}; with {config.classes} classes"
        raise ValueError(f"{told} they must be 0 to {config.classes - 1}")
