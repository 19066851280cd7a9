"""Our own weights on disk: safetensors files with their config and scores, and the bundled tiny ViTs."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer

TINY = Path(__file__).parent / "bundled"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to. What is written there replaces `path` at the end; after an error `path` stays as it was."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)  # at once: a reader sees the old file or the new one
    finally:
        unfinished.unlink(missing_ok=True)


def save_checkpoint(path: str | os.PathLike, model: nn.Module, *, eight_bits: bool = False, **scores) -> None:
    """Save a model with its config and `scores`, which are anything that JSON can hold.

    The file keeps the precision of the numbers, or with eight_bits a quarter of it, and is written whole or not at all.

    Raises: ValueError for a model that load_checkpoint could not fill again, such as a converted one without logits.
    """
    path, state = Path(path), {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    if wrong := misfits(empty_model(model.config), state):
        raise ValueError(f"this model is not what its config says, so nobody could load it again: {wrong}")
    facts = dict(config=asdict(model.config), eps=model.norm.eps, scores=scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        metadata = {name: json.dumps(fact) for name, fact in facts.items()}
        save_file(in_eight_bits(state) if eight_bits else state, unfinished, metadata)


def load_checkpoint(path: str | os.PathLike) -> tuple[VisionTransformer, dict]:
    """The model of a checkpoint, in eval mode, and its scores. Raises: FileNotFoundError; ValueError for a file that is
    truncated or not safetensors, no config, one that is not a ViTConfig, or one that the weights do not fit."""
    name = Path(path).name
    try:
        with safe_open(path, framework="pt") as file:
            facts = {fact: json.loads(told) for fact, told in (file.metadata() or {}).items() if fact != "format"}
            tensors = in_full({tensor: file.get_tensor(tensor) for tensor in file.keys()})
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{name} is not a complete safetensors checkpoint ({error})") from error
    try:
        model = empty_model(ViTConfig(**facts["config"]), eps=facts.get("eps", 1e-6))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} has no config that save_checkpoint wrote ({error})") from error
    if wrong := misfits(model, tensors):
        raise ValueError(f"the weights of {name} do not fit its config: {wrong}")
    model.to_empty(device="cpu").load_state_dict(tensors)
    return model.eval(), facts.get("scores", {})


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything but vectors as whole numbers from -127 to 127, with a scale for each row under the name + ".scale"."""
    small = {}
    for name, tensor in tensors.items():
        small[name] = tensor
        if tensor.ndim > 1:
            scale = (tensor.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-30)  # a row may be all zeros
            small |= {name: (tensor / scale).round().to(torch.int8), f"{name}.scale": scale}
    return small


def in_full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that in_eight_bits was given, off by at most half a scale; others as they are."""
    full = dict(tensors)
    for name in tensors:
        if f"{name}.scale" in tensors:
            full[name] = tensors[name] * full.pop(f"{name}.scale")
    return full


def empty_model(
    config: ViTConfig, *, eps: float = 1e-6, head_hidden: int | None = None, headless: bool = False
) -> VisionTransformer:
    """A model on the meta device: it has shapes, but no memory. head_hidden: width of a layer before the logits."""
    with torch.device("meta"):
        model = VisionTransformer(config)
        model.head = ClassificationHead(config.dim, config.classes, head_hidden)
        if headless:
            model.head.logits = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


def misfits(model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """The first four names whose tensor is missing, left over, or of another shape or kind than the model's; or ""."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(one.shape) if one.is_floating_point() else one.dtype for name, one in tensors.items()}
    wrong = [name for name in expected | given if given.get(name) != expected.get(name)]
    both = {name: (given.get(name, "missing"), expected.get(name, "nothing")) for name in wrong[:4]}
    return "; ".join(f"{name}: {got}, expected {wanted}" for name, (got, wanted) in both.items())


def bundled() -> dict[tuple[int, int], Path]:
    """The bundled tiny ViTs: (patch_size, heads) -> file."""
    found = [(re.findall(r"\d+", path.stem), path) for path in TINY.glob("tiny_*.safetensors")]
    return dict(sorted(((int(patch_size), int(heads)), path) for (patch_size, heads), path in found))


def load_tiny(patch_size: int = 8, heads: int = 4) -> VisionTransformer:
    """A ViT trained on ClutteredDigits (48 px, dim 64, depth 4), in eval mode; ValueError if it is not bundled."""
    files = bundled()
    if (patch_size, heads) not in files:
        train = f"python -m vit_walkthrough.train --patch-size {patch_size} --heads {heads}"
        known = f"the bundled (patch_size, heads) are {', '.join(map(str, files))}"
        raise ValueError(f"no bundled tiny ViT is ({patch_size}, {heads}); {known}. To train one: {train}")
    return load_checkpoint(files[patch_size, heads])[0]


def load_cued(seed: int = 0) -> VisionTransformer:
    """A ViT trained from seed 0, 1 or 2 on PlantedCue (8 x 8 patches, 4 heads), in eval mode."""
    return load_checkpoint(TINY / f"cue_s{seed}.safetensors")[0]
