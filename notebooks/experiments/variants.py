"""What the experiments put in the place of a part: other modules, other starts, other networks, mixed images."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from notebooks.experiments import BASE
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.encoder import EncoderBlock
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.loop import fit
from vit_walkthrough.train.masked import load_masked
from vit_walkthrough.train.successors import in_attention


def put(new: Callable[[], nn.Module], *places: str) -> Callable[[VisionTransformer], nn.Module]:
    """A change that puts a new module at every place that one of the patterns matches, such as *.attention.qkv."""

    def change(model: VisionTransformer) -> VisionTransformer:
        names = [name for name, _ in model.named_modules() if any(fnmatchcase(name, place) for place in places)]
        for name in names:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, new())
        return model

    return change


def start(init: Callable[..., Tensor], *names: str, **settings) -> Callable[[VisionTransformer], nn.Module]:
    """A change that gives every parameter that one of the patterns matches other numbers to start from."""

    def change(model: VisionTransformer) -> VisionTransformer:
        for name, parameter in model.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in names):
                init(parameter, **settings)
        return model

    return change


class Repeat(nn.Module):
    """One matrix, whose output serves as queries, keys and values. It is not doubled at the start as the queries and
    keys of `init_model` are, because this would double the values too."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(BASE.dim, BASE.dim)
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(tokens).repeat(1, 1, 3)


def token_batch_norm() -> nn.Module:
    """BatchNorm of every feature over the batch and its tokens."""
    back = Rearrange("batch dim tokens -> batch tokens dim")
    return nn.Sequential(Rearrange("batch tokens dim -> batch dim tokens"), nn.BatchNorm1d(BASE.dim), back)


def overlap(model: VisionTransformer) -> nn.Module:
    """7 x 7 patches of 12 pixels, 6 apart, on images of 48. The given ViT has 7 x 7 patches on images of 84."""
    linear, side = model.patch_embedding.projection, model.config.patch_size
    convolution = nn.Conv2d(3, model.config.dim, side, stride=side // 2)
    convolution.load_state_dict({"weight": linear.weight.view_as(convolution.weight), "bias": linear.bias})
    model.patch_embedding = nn.Sequential(convolution, Rearrange("batch dim rows cols -> batch (rows cols) dim"))
    model.config = replace(model.config, image_size=48)  # forward compares its images with it
    return model


def keep_patches_from_class_token(model: VisionTransformer) -> nn.Module:
    """Patches may not attend to the class token; the class token still attends to all."""

    def shut(module, inputs, weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[..., 1:, 0] = 0
        return weights / weights.sum(dim=-1, keepdim=True)

    for block in model.blocks:
        block.attention.fused = False
        block.attention.weights.register_forward_hook(shut)
    return model


def small_cnn() -> nn.Module:
    """The rival of BASE: four 3 x 3 convolutions with BatchNorm, each of which halves the picture, and a mean over the
    rest. It has as many parameters, within 3%."""
    widths = [3, 32, 64, 96, 96]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], BASE.classes))


def linear_classifier(model: VisionTransformer) -> nn.Module:
    """Instead of a ViT, one matrix from all pixels to the logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * BASE.height * BASE.width, BASE.classes))


class NormLast(EncoderBlock):
    """A block as in the Transformer of 2017: the norm comes after the addition, and the stream itself is normalised."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm_1(tokens + self.attention(tokens))
        return self.norm_2(tokens + self.mlp(tokens))


def norm_last(model: VisionTransformer) -> nn.Module:
    """Blocks with the same weights whose norms come last. The norm after the last block would be one too many."""
    for block in model.blocks:
        block.__class__ = NormLast
    model.norm = nn.Identity()
    return model


class NoAddition(EncoderBlock):
    """A block whose halves replace the tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.attention(self.norm_1(tokens))
        return self.mlp(self.norm_2(tokens))


def no_additions(model: VisionTransformer) -> nn.Module:
    """What a half of a block has read is lost behind it."""
    for block in model.blocks:
        block.__class__ = NoAddition
    return model


def dropout_on_weights(model: VisionTransformer) -> nn.Module:
    """Dropout on the attention weights as well."""
    return in_attention(model, lambda block: nn.Dropout(model.config.dropout), "weights")


class DropPath(nn.Module):
    """In training, nothing of a branch for a share of the images, and accordingly more for the others."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.share
        return branch * kept / (1 - self.share)


def drop_path(model: VisionTransformer) -> nn.Module:
    """A tenth of the branches is dropped at random."""
    for block in model.blocks:
        block.attention.dropout = DropPath(0.1)
        block.mlp = nn.Sequential(block.mlp, DropPath(0.1))
    return model


class Mixup:
    """Every image is mixed with another one, and its label too, in the same random proportion (arXiv 1710.09412)."""

    def __init__(self, data: ClutteredDigits):
        self.data = data

    def sample(self, count: int, draw: int) -> tuple[Tensor, Tensor]:
        images, labels, _ = self.data.sample(count, draw)
        share = torch.rand(count, 1, generator=torch.Generator().manual_seed(draw))
        classes = F.one_hot(labels, BASE.classes).float()
        mixed = torch.lerp(images, images.flip(0), share[..., None, None])
        return mixed, torch.lerp(classes, classes.flip(0), share)


def sgd(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Gradient descent with momentum. Its weight decay is of another kind and stays at 1e-4."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


class Taught:
    """Images with two rows of labels: their own, and behind them what a CNN says that was trained on the same data."""

    def __init__(self, data: ClutteredDigits, teacher: nn.Module | None = None):
        self.data, self.teacher = data, teacher

    def sample(self, count: int, draw: int) -> tuple[Tensor, Tensor]:
        if self.teacher is None:
            self.teacher = fit(small_cnn(), self.data, seed=self.data.seed, progress=False).model
        images, labels, _ = self.data.sample(count, draw)
        with torch.no_grad():
            return images, torch.cat([labels, self.teacher(images).argmax(dim=-1)])


def pretrained(model: VisionTransformer, seed: int) -> VisionTransformer:
    """The model with the weights of the bundled autoencoder's encoder; its head stays as it is."""
    encoder = load_masked(seed).encoder.state_dict()
    model.load_state_dict({name: tensor for name, tensor in encoder.items() if "head" not in name}, strict=False)
    return model


def head_alone(model: VisionTransformer) -> VisionTransformer:
    """The model, frozen but for its head: a linear probe."""
    model.requires_grad_(False).head.requires_grad_(True)
    return model
