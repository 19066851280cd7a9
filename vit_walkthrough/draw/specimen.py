"""The numbers that the schematics show: what a model of a config makes of an image, computed by the package's own
modules, as NumPy arrays and no further than a picture needs."""

import copy
from functools import cache, cached_property

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from vit_walkthrough.data import photo
from vit_walkthrough.model.attention import MultiHeadSelfAttention, attend, attention_weights
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.encoder import MLP, EncoderBlock
from vit_walkthrough.model.patches import PatchEmbedding, patchify
from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer

# What a picture may cost: multiplications, and random numbers to draw. ViT-B/16 can afford one block.
MOST_PRODUCTS, MOST_NUMBERS = 2_000_000_000, 9_000_000


def default_image(config: ViTConfig) -> Tensor:
    """The cat at the config's size, in grey for one channel.

    Raises: ValueError for a number of channels that no picture has.
    """
    if config.channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, not {config.channels}")
    cat = photo("cat", (config.height, config.width))
    return cat if config.channels == 3 else cat.mean(dim=0, keepdim=True)


@cache
def _dice() -> Tensor:
    """Random numbers from -1 to 1, always the same. Their count is prime, so that no two rows of a matrix are alike."""
    return torch.rand(1_000_003, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _filled(module: nn.Module, seed: int) -> nn.Module:
    """Random numbers as large as keep a signal's size, so that there is something to see in every strip.

    They are read again and again from one list, each module beginning elsewhere: to draw seven million would take
    longer than all the rest of a picture.
    """
    dice, begin = _dice(), 65_537 * seed
    for name, parameter in module.named_parameters():
        if "norm" in name:
            nn.init.constant_(parameter, float(name.endswith("weight")))
            continue
        fan_in = parameter.shape[1] if parameter.ndim == 2 else 3
        bound = (3 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.1
        count, begin = parameter.numel(), begin % len(dice)
        numbers = (
            dice[begin:]
            if begin + count <= len(dice)
            else torch.cat([dice[begin:], dice.repeat(count // len(dice) + 1)])
        )
        torch.mul(numbers[:count].view(parameter.shape), bound, out=parameter)
        begin += count
    return module.eval()


def _made(kind: type, *sizes, seed: int) -> nn.Module:
    """A module that skips its own first random numbers, which would be overwritten and take most of the time."""
    with torch.device("meta"):
        module = kind(*sizes)
    return _filled(module.to_empty(device="cpu"), seed)


class Specimen:
    """What a ViT of this config makes of this image, stage by stage; a stage is computed when it is asked for.

    image: (channels, height, width) in [0, 1], by default the cat. model: whose values to show, by default those of
    random weights, always the same. Indices of tokens count the class token as 0.

    Raises: ValueError for an image of another size than the config's, or a model of another config; where a head is
    asked of a model that has none.
    """

    def __init__(self, config: ViTConfig, image=None, model: VisionTransformer | None = None):
        image = torch.as_tensor(np.asarray(image), dtype=torch.float32) if image is not None else default_image(config)
        expected = (config.channels, config.height, config.width)
        if tuple(image.shape) != expected:
            raise ValueError(
                f"an image of {tuple(image.shape)}, but the config says (channels, height, width) = {expected}; "
                f"load_image(source, size) resizes"
            )
        if config.channels not in (1, 3):
            raise ValueError(f"a picture has 1 or 3 channels, not {config.channels}")
        if model is not None and model.config != config:
            raise ValueError(f"the model's config is {model.config}, not {config}")
        if model is not None:
            token = model.class_token.token
            if model.training or token.device.type != "cpu" or token.dtype != torch.float32:
                model = copy.deepcopy(model).cpu().float().eval()  # the reader's own stays as it is
        self.config, self.image, self.model = config, image, model

    @staticmethod
    def bent(kind: str, numbers: np.ndarray) -> np.ndarray:
        """What an activation, "GELU" or "Tanh", makes of numbers."""
        return getattr(nn, kind)()(torch.from_numpy(numbers)).numpy()

    @property
    def source(self) -> str:
        """Whose values these are, in words."""
        return (
            "real values, of the model given" if self.model else "real values, of random weights: they mean nothing yet"
        )

    @property
    def picture(self) -> np.ndarray:
        """(height, width, 3), to look at."""
        return np.broadcast_to(self.image.numpy().transpose(1, 2, 0), (*self.image.shape[1:], 3)).clip(0, 1)

    def tile(self, patch: int) -> np.ndarray:
        """One patch as a picture."""
        side = self.config.patch_size
        row, col = divmod(patch, self.config.cols)
        return self.picture[row * side : (row + 1) * side, col * side : (col + 1) * side]

    # The modules: the model's own, or fresh ones.

    def _module(self, path: str, kind: type, *sizes, seed: int) -> nn.Module:
        with torch.no_grad():
            return self.model.get_submodule(path) if self.model else _made(kind, *sizes, seed=seed)

    @cached_property
    def embedding(self) -> PatchEmbedding:
        sizes = self.config.patch_size, self.config.channels, self.config.dim
        return self._module("patch_embedding", PatchEmbedding, *sizes, seed=1)

    @cached_property
    def class_token(self) -> ClassToken:
        return self._module("class_token", ClassToken, self.config.dim, seed=2)

    @cached_property
    def position_embedding(self) -> nn.Module:
        if self.model or self.config.positions == "none":
            return self.model.position_embedding if self.model else nn.Identity()
        # Not from _made: the sines and cosines are no random numbers. Nobody else's dice are thrown for the others.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            sizes = self.config.rows, self.config.cols, self.config.dim
            return _filled(PositionEmbedding(*sizes, self.config.positions), seed=3)

    @cached_property
    def attention(self) -> MultiHeadSelfAttention:
        sizes = self.config.dim, self.config.heads
        return self._module("blocks.0.attention", MultiHeadSelfAttention, *sizes, seed=4)

    @cached_property
    def mlp(self) -> MLP:
        return self._module("blocks.0.mlp", MLP, self.config.dim, self.config.hidden, seed=5)

    @cached_property
    def head(self) -> ClassificationHead:
        if self.model and isinstance(self.model.head.logits, nn.Identity):
            raise ValueError("this model has no head to draw; converted with classes=10, say, it gets a new one")
        return self._module("head", ClassificationHead, self.config.dim, self.config.classes, seed=6)

    @property
    def pretrained_head(self) -> bool:
        """Whether the model still has the head of its pre-training, as few published weights do."""
        head = self.model.head if self.model else None
        return head is not None and isinstance(head.hidden, nn.Sequential) and isinstance(head.logits, nn.Linear)

    @cached_property
    def pretraining_head(self) -> ClassificationHead:
        """With a hidden layer: the model's own if it has it, else random and as wide as a token."""
        if self.pretrained_head:
            return self.model.head
        with torch.no_grad():
            return _made(ClassificationHead, self.config.dim, self.config.classes, self.config.dim, seed=7)

    def new_head(self, classes: int) -> ClassificationHead:
        """As fine-tuning starts: all its weights are zero."""
        with torch.random.fork_rng(devices=[]):
            return ClassificationHead(self.config.dim, classes)

    def read_by(self, head: ClassificationHead) -> dict[str, np.ndarray]:
        """What a head makes of the features, station by station."""
        with torch.no_grad():
            hidden = head.hidden(torch.from_numpy(self.features)[None])
            logits = head.logits(hidden)[0]
            stations = dict(hidden=hidden[0], logits=logits, probabilities=logits.softmax(dim=0))
        return {name: tensor.numpy() for name, tensor in stations.items()}

    def _norm(self, path: str) -> nn.LayerNorm:
        return self.model.get_submodule(path) if self.model else nn.LayerNorm(self.config.dim, eps=1e-6)

    def block(self, layer: int) -> EncoderBlock:
        """One of the blocks; the first is made of the parts that the other pictures show."""
        if self.model:
            return self.model.blocks[layer]
        sizes = self.config.dim, self.config.heads, self.config.hidden
        if layer:
            return self._module("", EncoderBlock, *sizes, seed=100 + layer)
        with torch.device("meta"):
            block = EncoderBlock(*sizes)
        block.norm_1, block.norm_2 = self._norm("blocks.0.norm_1"), self._norm("blocks.0.norm_2")
        block.attention, block.mlp = self.attention, self.mlp
        return block.eval()

    # What they make of the image.

    @cached_property
    def flat(self) -> np.ndarray:
        """(patches patch_dim)"""
        return patchify(self.image[None], self.config.patch_size)[0].numpy()

    @cached_property
    def embedded(self) -> np.ndarray:
        """(patches dim)"""
        with torch.no_grad():
            return self.embedding(self.image[None])[0].numpy()

    @cached_property
    def sequence(self) -> np.ndarray:
        """(tokens dim), the class token first"""
        with torch.no_grad():
            return self.class_token(torch.from_numpy(self.embedded)[None])[0].numpy()

    @cached_property
    def positions(self) -> np.ndarray | None:
        """(tokens dim), or None if the config has no positions"""
        if self.config.positions == "none":
            return None
        return self.position_embedding.positions[0].detach().numpy()

    @cached_property
    def tokens(self) -> np.ndarray:
        """(tokens dim), what enters the first block"""
        with torch.no_grad():
            return self.position_embedding(torch.from_numpy(self.sequence)[None])[0].numpy()

    @cached_property
    def normed(self) -> np.ndarray:
        """(tokens dim), what the first attention reads"""
        with torch.no_grad():
            return self._norm("blocks.0.norm_1")(torch.from_numpy(self.tokens)).numpy()

    @cached_property
    def qkv(self) -> np.ndarray:
        """(3 heads tokens head_dim): queries, keys and values of every head"""
        with torch.no_grad():
            qkv = self.attention.qkv(torch.from_numpy(self.normed))
            pattern = "tokens (qkv heads head_dim) -> qkv heads tokens head_dim"
            return rearrange(qkv, pattern, qkv=3, heads=self.config.heads).numpy()

    def weights(self, head: int, queries: list[int]) -> np.ndarray:
        """(queries keys) of one head, rows that sum to 1"""
        asked, keys, _ = torch.from_numpy(self.qkv)[:, head]
        return attention_weights(asked[queries], keys).numpy()

    def scores(self, head: int, queries: list[int]) -> np.ndarray:
        """(queries keys) of one head, before the softmax and not yet scaled"""
        asked, keys, _ = self.qkv[:, head]
        return asked[queries] @ keys.T

    def head_outputs(self, queries: list[int]) -> np.ndarray:
        """(heads queries head_dim): what every head brings to these queries"""
        asked, keys, values = torch.from_numpy(self.qkv)
        return attend(attention_weights(asked[:, queries], keys), values).numpy()

    def attended(self, queries: list[int]) -> np.ndarray:
        """(queries dim), what attention adds to these tokens"""
        joined = rearrange(self.head_outputs(queries), "heads queries head_dim -> queries (heads head_dim)")
        with torch.no_grad():
            return self.attention.projection(torch.from_numpy(joined)).numpy()

    def through_mlp(self, tokens: list[int]) -> dict[str, np.ndarray]:
        """What happens to these tokens from the first attention on to the end of the block, station by station."""
        with torch.no_grad():
            stream = torch.from_numpy(self.tokens[tokens] + self.attended(tokens))
            normed = self._norm("blocks.0.norm_2")(stream)
            expanded = self.mlp.expand(normed)
            bent = self.mlp.gelu(expanded)
            added = self.mlp.contract(bent)
        stations = dict(stream=stream, normed=normed, expanded=expanded, bent=bent, added=added, out=stream + added)
        return {name: tensor.numpy() for name, tensor in stations.items()}

    def fused(self, queries: list[int]) -> np.ndarray:
        """The same as `head_outputs`, by the kernel that never holds the weights."""
        asked, keys, values = torch.from_numpy(self.qkv)[:, None]
        return nn.functional.scaled_dot_product_attention(asked[:, :, queries], keys, values)[0].numpy()

    def dropped(self, numbers: np.ndarray, probability: float | int) -> np.ndarray:
        """Numbers after dropout, as in training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return nn.Dropout(probability)(torch.from_numpy(numbers)).numpy()

    @property
    def layers(self) -> int:
        """How many of the blocks `encoded` runs through: all, if the model is there or the config is small."""
        config = self.config
        numbers = 4 * config.dim**2 + 2 * config.dim * config.hidden
        products = config.tokens * numbers + 2 * config.tokens**2 * config.dim
        affordable = min(MOST_PRODUCTS // products, MOST_NUMBERS // numbers)
        return config.depth if self.model else min(config.depth, affordable)

    @property
    def layers_run(self) -> str:
        """The same in words, empty if nothing is left out."""
        depth = self.config.depth
        blocks = "block" if depth == 1 else f"{depth} blocks"
        if not self.layers:
            return f", shown before the {blocks}"
        return f", shown after {self.layers} of the {blocks}" if self.layers < depth else ""

    @cached_property
    def stream(self) -> list[np.ndarray]:
        """(tokens dim) before the first block and after each that is run"""
        stream = [torch.from_numpy(self.tokens)[None]]
        with torch.no_grad():
            for layer in range(self.layers):
                stream.append(self.block(layer)(stream[-1]))
        return [tokens[0].numpy() for tokens in stream]

    @cached_property
    def encoded(self) -> np.ndarray:
        """(tokens dim), normalised"""
        with torch.no_grad():
            return self._norm("norm")(torch.from_numpy(self.stream[-1])).numpy()

    @cached_property
    def features(self) -> np.ndarray:
        """(dim): what the head reads"""
        return self.encoded[0] if self.config.pooling == "class" else self.encoded[1:].mean(axis=0)

    @cached_property
    def logits(self) -> np.ndarray:
        """(classes)"""
        with torch.no_grad():
            return self.head(torch.from_numpy(self.features)[None])[0].numpy()

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(classes), which sum to 1"""
        return torch.from_numpy(self.logits).softmax(dim=0).numpy()
