"""What a trained model looked at, and how far such a map can be trusted: maps first, then what measures them."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig

Images = Float[Tensor, "batch channels height width"]
Maps = Float[Tensor, "batch patches"]
Attention = Float[Tensor, "blocks batch heads queries keys"]
Classes = Int[Tensor, " batch"] | Sequence[int]


def config_of(model) -> ViTConfig:
    """The config of a ViT of this package. Raises: TypeError for another model."""
    if not isinstance(config := getattr(model, "config", None), ViTConfig):
        raise TypeError(f"the model is a {type(model).__name__} without a ViTConfig; give a VisionTransformer")
    return config


def _check_attention(attention: Tensor) -> None:
    if attention.ndim != 5 or attention.shape[-1] != attention.shape[-2]:
        shape = tuple(attention.shape)
        raise ValueError(f"attention must be (blocks batch heads queries keys), as trace.attention; not {shape}")
    if not ((attention.sum(-1) - 1).abs() <= 1e-3).all():
        raise ValueError("the rows of the attention do not sum to 1; its last axis must be the keys")


def _check_classes(classes, images: Tensor, known: int) -> Int[Tensor, " batch"]:
    """The same as indices, where the images are."""
    given = classes.tolist() if hasattr(classes, "tolist") else classes
    listed = isinstance(given, Sequence) and len(given) == len(images)
    if not listed or not all(type(number) is int and 0 <= number < known for number in given):
        raise ValueError(f"classes must be {len(images)} integers from 0 to {known - 1}, one for each; not {given}")
    return torch.tensor(given, dtype=torch.long, device=images.device)


def rollout(attention: Attention) -> Float[Tensor, "batch queries keys"]:
    """How much of every token of the image arrives at every output token, if only attention moves it.

    For each block: the mean over the heads, plus the identity for the residual stream, every row scaled to sum to 1.
    Then the product from the first block to the last. The map of the class token is [:, 0, 1:].

    Source: D.8; Abnar and Zuidema 2020, arXiv 2005.00928.
    """
    _check_attention(attention)
    identity = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    arrived = identity.expand(attention.shape[1], -1, -1)
    for block in attention:
        mixed = block.mean(dim=1) + identity
        arrived = mixed / mixed.sum(dim=-1, keepdim=True) @ arrived
    return arrived


def relevance(model, images: Images, classes: Classes | None = None) -> Maps:
    """How much each patch speaks for a class: rollout in which a weight counts only where raising it raises the logit.

    classes: one for each image; by default the one that the model predicts.
    Source: Chefer et al. 2021, arXiv 2103.15679, Equations 5 and 6. Differs: with mean pooling the mean over the rows
    of the patches is read, because the class token is not.
    """
    config = config_of(model)
    with torch.inference_mode(False), torch.enable_grad():
        watched = images.detach().clone().requires_grad_()  # so that there is a graph, whatever of the model is frozen
        with record(model, "*.attention.weights") as trace:
            logits = model(watched)
        classes = _check_classes(logits.argmax(-1) if classes is None else classes, images, logits.shape[1])
        weights = list(trace.values())
        gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), weights)
    arrived = torch.eye(weights[0].shape[-1]).to(weights[0]).expand(len(images), -1, -1)
    for weight, gradient in zip(weights, gradients, strict=True):
        arrived = arrived + (weight.detach() * gradient).clamp(min=0).mean(dim=1) @ arrived
    return arrived[:, 0, 1:] if config.pooling == "class" else arrived[:, 1:, 1:].mean(dim=1)


def attention_distance(attention: Attention, rows: int, cols: int, patch_size: int) -> Float[Tensor, "blocks heads"]:
    """How far from itself a patch looks on average, in pixels, between the centres of patches.

    The class token has no place and is left out; each row is scaled to sum to 1 over the patches. A row that has
    nothing for the patches is left out of the mean.

    Raises: ValueError if the grid does not fit the attention.
    Source: D.7, Figure 7 right and Figure 11.
    """
    _check_attention(attention)
    if attention.shape[-1] != rows * cols + 1:
        raise ValueError(f"attention over {attention.shape[-1]} tokens, but {rows} * {cols} patches and a class token")
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).to(attention) * patch_size
    distances = torch.cdist(grid, grid)
    patches = attention[..., 1:, 1:]
    patches = patches / patches.sum(dim=-1, keepdim=True)
    return (patches * distances).sum(dim=-1).nanmean(dim=(1, 3))


@torch.no_grad()
def logit_lens(model, images: Images) -> Float[Tensor, "stations batch classes"]:
    """What the classification head would say before the first block and after every block. Source: nostalgebraist
    2020, "interpreting GPT: the logit lens", with the ViT's own final norm and head."""
    blocks = [f"blocks.{block}" for block in range(config_of(model).depth)]
    with record(model, "blocks.0.norm_1.input", *blocks) as trace:
        model(images)
    return torch.stack([model.head(model.pool(model.norm(tokens))) for tokens in trace.values()])


def position_similarity(positions: Float[Tensor, "1 tokens dim"]) -> Float[Tensor, "patches patches"]:
    """The cosine similarity of the positions of any two patches. Source: Figure 7, centre."""
    directions = F.normalize(positions[0, 1:].detach(), dim=-1)
    return directions @ directions.T


def principal_filters(weight: Float[Tensor, "dim patch_dim"], count: int = 28) -> Float[Tensor, "count patch_dim"]:
    """The directions of patch_dim in which the filters of the patch embedding vary most. Source: Figure 7, left.

    Raises: ValueError for a count below 1, or above patch_dim or the number of filters.
    """
    if not 1 <= count <= min(weight.shape):
        raise ValueError(f"count {count} is not between 1 and {min(weight.shape)}")
    centred = weight.detach() - weight.detach().mean(0)
    return torch.linalg.svd(centred, full_matrices=False).Vh[:count]


def grid_of(tokens: int, height: int, width: int) -> tuple[int, int]:
    """The side of the square patches, and the place of the first of them: 1 behind a class token, else 0."""
    for first in (1, 0) if tokens > 1 else ():
        patches = tokens - first
        side = max(1, round((height * width / patches) ** 0.5))
        if height % side == width % side == 0 and (height // side) * (width // side) == patches:
            return side, first
    patches = f"{tokens - 1} patches (or {tokens}, without a class token)"
    raise ValueError(f"{patches} do not tile an image of {height} x {width} pixels with squares")


def box_of(mask: Tensor) -> list[int]:
    """left, top, width, height of what is true in a mask (height width)."""
    (top, left), (bottom, right) = (ends.tolist() for ends in torch.aminmax(mask.nonzero(), dim=0))
    return [left, top, right - left + 1, bottom - top + 1]


def _covered(maps: Tensor, masks: Tensor) -> Maps:
    """The share of each patch that lies on the object."""
    fits = maps.ndim == 2 and masks.ndim == 3 and len(maps) == len(masks) and 0 < maps.shape[1] <= masks[0].numel()
    side = math.isqrt(masks[0].numel() // maps.shape[1]) if fits else 1
    if not fits or any(length % side for length in masks.shape[1:]) or maps.shape[1] * side**2 != masks[0].numel():
        shapes = f"{tuple(maps.shape)} (batch, patches) do not fit masks {tuple(masks.shape)} (batch, height, width)"
        raise ValueError(f"maps {shapes}")
    if not maps.isfinite().all():
        raise ValueError("a map has numbers that are NaN or infinite")
    shares = reduce(masks.float(), "batch (rows ph) (cols pw) -> batch (rows cols)", "mean", ph=side, pw=side)
    return shares.to(maps.device)


def mass_on_object(maps: Maps, masks: Bool[Tensor, "batch height width"]) -> Float[Tensor, " batch"]:
    """The share of each map that falls on the object; a uniform map gets the object's share of the area. Raises:
    ValueError for maps that do not fit the masks, are negative or empty, or hold NaN."""
    covered = _covered(maps, masks)
    if (maps < 0).any() or (maps.sum(-1) <= 0).any():
        raise ValueError("a map must be of numbers from 0 up, and not all 0")
    return (maps * covered).sum(-1) / maps.sum(-1)


def pointing_game(maps: Maps, masks: Bool[Tensor, "batch height width"]) -> Bool[Tensor, " batch"]:
    """Whether the strongest patch of each map lies on the object, with half of its area or more. Raises: as
    mass_on_object. Source: Zhang et al. 2016, arXiv 1608.00507, for patches instead of pixels."""
    return _covered(maps, masks).gather(1, maps.argmax(-1, keepdim=True))[:, 0] >= 0.5


def cover(images: Images, patches: Iterable[int], patch_size: int) -> Images:
    """The images with some patches painted in the median colour of each image."""
    ground = images.flatten(2).median(dim=-1).values[..., None, None]
    images, cols = images.clone(), images.shape[-1] // patch_size
    for patch in patches:
        top, left = (patch_size * place for place in divmod(patch, cols))
        images[..., top : top + patch_size, left : left + patch_size] = ground
    return images


@torch.no_grad()
def occlusion(model, images: Images, classes: Classes | None = None) -> Maps:
    """By how much the probability of a class falls when a patch is covered with the image's median colour; below 0
    where it rises. We ask the model about every patch, and read no attention.

    classes: one for each image; by default the one that the model predicts.
    Source: Zeiler and Fergus 2014, arXiv 1311.2901, for patches instead of a sliding square.
    """
    config, before = config_of(model), model(images).softmax(-1)
    classes = _check_classes(before.argmax(-1) if classes is None else classes, images, before.shape[1])
    falls = []
    for patch in range(config.patches):
        after = model(cover(images, [patch], config.patch_size)).softmax(-1)
        falls.append((before - after)[range(len(images)), classes])
    return torch.stack(falls, dim=1)
