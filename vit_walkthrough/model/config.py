"""The sizes of a Vision Transformer: chosen, derived and published."""

from dataclasses import dataclass
from math import gcd
from typing import Literal


def divisors(number: int) -> list[int]:
    """The whole numbers that divide `number`, smallest first."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


# dim, depth, heads, hidden: Table 1 for B, L and H; Steiner et al. 2021, arXiv 2106.10270, Table 2 for Ti and S
SIZES = {
    "Ti": (192, 12, 3, 768),
    "S": (384, 12, 6, 1536),
    "B": (768, 12, 12, 3072),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
}
VARIANTS = ("Ti/16", "Ti/32", "S/16", "S/32", "B/8", "B/16", "B/32", "L/16", "L/32", "H/14")


@dataclass(frozen=True)
class ViTConfig:
    """The choices that decide the shapes of a Vision Transformer; the defaults are ViT-B/16.

    image_size: side in pixels, or (height, width), of which a JSON makes a list; equal sides are stored as one integer.
    patch_size: side of a square patch in pixels.
    channels: of the image. dim: length of a token. depth: encoder blocks. heads: attention heads in a block.
    hidden: width of the MLP's hidden layer. classes: number of logits. dropout: probability, from 0 to below 1.
    positions: "learned" as in the paper; "sincos", fixed 2-D sines and cosines; "none".
    pooling: "class" reads the class token's output; "mean" averages the outputs of the patches.

    Raises: ValueError that names the value and the valid choices; TypeError for a size that is not a whole number.
    Source: section 3.1 and Table 1.
    """

    image_size: int | tuple[int, int] | list[int] = 224
    patch_size: int = 16
    channels: int = 3
    dim: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    classes: int = 1000
    dropout: float | int = 0.0
    positions: Literal["learned", "sincos", "none"] = "learned"
    pooling: Literal["class", "mean"] = "class"

    def __post_init__(self):
        if isinstance(self.image_size, list):
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if isinstance(self.image_size, tuple) and len(self.image_size) != 2:
            raise ValueError(f"image_size {self.image_size} is neither one side nor (height, width)")
        named = "patch_size", "channels", "dim", "depth", "heads", "hidden", "classes"
        sizes = {name: getattr(self, name) for name in named}
        sizes |= {"image_size (height)": self.height, "image_size (width)": self.width}
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} is {size!r}; it must be a whole number")
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if self.height == self.width:  # a square is one config, however its size was given
            object.__setattr__(self, "image_size", self.height)
        if self.height % self.patch_size or self.width % self.patch_size:
            size = self.height if self.height == self.width else f"{self.height} x {self.width}"
            known = str(divisors(gcd(self.height, self.width)))[1:-1]
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {size}; choose one of {known}")
        if self.dim % self.heads:
            known = str(divisors(self.dim))[1:-1]
            raise ValueError(f"heads {self.heads} does not divide dim {self.dim}; choose one of {known}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)):
            raise TypeError(f"dropout is {self.dropout!r}; it must be a number")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.positions not in ("learned", "sincos", "none"):
            raise ValueError(f"positions {self.positions!r} is unknown; choose learned, sincos or none")
        if self.positions == "sincos" and self.dim % 4:
            near = " or ".join(map(str, sorted({max(4, self.dim - self.dim % 4), self.dim + -self.dim % 4})))
            raise ValueError(f"dim {self.dim} is not a multiple of 4, which sincos positions need; choose {near}")
        if self.pooling not in ("class", "mean"):
            raise ValueError(f"pooling {self.pooling!r} is unknown; choose class or mean")

    @property
    def height(self) -> int:
        return self.image_size[0] if isinstance(self.image_size, tuple) else self.image_size

    @property
    def width(self) -> int:
        return self.image_size[1] if isinstance(self.image_size, tuple) else self.image_size

    @property
    def rows(self) -> int:
        return self.height // self.patch_size

    @property
    def cols(self) -> int:
        return self.width // self.patch_size

    @property
    def patches(self) -> int:
        """N in the paper: H*W/P^2."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """The patches and the class token."""
        return self.patches + 1

    @property
    def patch_dim(self) -> int:
        """The numbers in one flattened patch, P^2*C in the paper."""
        return self.channels * self.patch_size**2

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @classmethod
    def named(cls, variant: str, **changes) -> "ViTConfig":
        """A published size by name, "B/16" being Base with patches of 16 pixels; `changes` override fields.

        Raises: ValueError for an unknown name; the message lists the known ones.
        Source: Table 1.
        """
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is unknown; choose one of {', '.join(VARIANTS)}")
        size, patch_size = variant.split("/")
        published = dict(zip(("dim", "depth", "heads", "hidden"), SIZES[size], strict=True), patch_size=int(patch_size))
        return cls(**(published | changes))
