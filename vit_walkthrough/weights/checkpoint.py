"""Weights on disk: checkpoints as safetensors with their config and scores, the tiny ViTs that come along, and those
that others published (convert.py, published.py)."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.convert import convert_weights, empty_model, tensor_names
from vit_walkthrough.weights.published import Preprocessing, Pretrained, load_pretrained

__all__ = [
    "Preprocessing",
    "Pretrained",
    "bundled",
    "convert_weights",
    "load_checkpoint",
    "load_pretrained",
    "load_tiny",
    "read_tensors",
    "save_checkpoint",
    "tensor_names",
    "write_tensors",
]

TINY = Path(__file__).parent / "bundled"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when all went well; after an error nothing does."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)  # at once: a reader sees the old file or the new one
    finally:
        unfinished.unlink(missing_ok=True)


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], **facts) -> None:
    """A safetensors file with `facts` as JSON beside the tensors, written whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, unfinished, metadata={name: json.dumps(fact) for name, fact in facts.items()})


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the facts of a file that write_tensors wrote.

    Raises: FileNotFoundError; ValueError for a file that is truncated, not safetensors or without its facts.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = {name: json.loads(fact) for name, fact in (file.metadata() or {}).items() if name != "format"}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{Path(path).name} is no whole safetensors checkpoint ({error})") from error
    return tensors, facts


def save_checkpoint(path: str | os.PathLike, model: VisionTransformer, **scores) -> None:
    """A model with its config and what was measured of it, `scores` being anything that JSON can say. Its numbers are
    written in the precision that they have, and read as 32 bits. What a converted model has beyond its config is kept
    as well: the eps of its LayerNorms, a hidden layer in its head, no head."""
    head = model.head
    beyond = {
        "eps": model.norm.eps,
        "head_hidden": head.hidden[0].out_features if isinstance(head.hidden, nn.Sequential) else None,
        "headless": isinstance(head.logits, nn.Identity),
    }
    write_tensors(path, model.state_dict(), config=asdict(model.config), beyond=beyond, scores=scores)


def load_checkpoint(path: str | os.PathLike) -> tuple[VisionTransformer, dict]:
    """The model of a checkpoint, in eval mode, and its scores.

    Raises: as read_tensors; ValueError for no config, one that is no ViTConfig, or one that the weights do not fit.
    """
    tensors, facts = read_tensors(path)
    if "config" not in facts:
        raise ValueError(f"{Path(path).name} holds no config; save_checkpoint writes one beside the weights")
    try:  # JSON knows no tuples
        fields = {key: tuple(field) if isinstance(field, list) else field for key, field in facts["config"].items()}
        model = empty_model(ViTConfig(**fields), **facts.get("beyond", {}))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the config of {Path(path).name} is none of ours ({error})") from error
    _fill(model, tensors, Path(path).name)
    return model.eval(), facts.get("scores", {})


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    wrong = [f"{key}: {given.get(key, 'missing')}, expected {expected.get(key, 'nothing')}"
             for key in {**expected, **given} if given.get(key) != expected.get(key)]  # fmt: skip
    if wrong:
        raise ValueError(f"the weights of {name} do not fit its config: {'; '.join(wrong[:4])}")
    model.to_empty(device="cpu").load_state_dict(dict(tensors))


def bundled() -> dict[tuple[int, int], Path]:
    """The tiny ViTs that come along: (patch_size, heads) -> file."""
    found = {}
    for path in TINY.glob("*.safetensors"):
        if name := re.fullmatch(r"tiny_p(\d+)_h(\d+)", path.stem):
            found[int(name[1]), int(name[2])] = path
    return dict(sorted(found.items()))


def load_tiny(patch_size: int = 8, heads: int = 4) -> VisionTransformer:
    """A ViT trained on ClutteredDigits (48 px, dim 64, depth 4), in eval mode.

    Raises: ValueError if none with this patch size and these heads comes along; the message lists those that do.
    """
    files = bundled()
    if (patch_size, heads) not in files:
        heads_of: dict[int, list[str]] = {}
        for size, count in files:
            heads_of.setdefault(size, []).append(str(count))
        there = "; ".join(f"patch_size {size} with heads {', '.join(counts)}" for size, counts in heads_of.items())
        raise ValueError(
            f"no tiny ViT with patch_size {patch_size} and heads {heads} comes along; there is "
            f"{there or f'none in {TINY}'}. "
            f"To train one: python -m vit_walkthrough.train --patch-size {patch_size} --heads {heads}"
        )
    return load_checkpoint(files[patch_size, heads])[0]
