"""Equation 4 and the whole: images in, logits out."""

from jaxtyping import Float
from torch import Tensor, nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.encoder import Encoder
from vit_walkthrough.model.patches import PatchEmbedding
from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding


class ClassificationHead(nn.Module):
    """One linear layer that starts at zero, so that every class starts equally likely. With `hidden`, another layer and
    a tanh come before it, as at pre-training; at fine-tuning there is none. Source: section 3.1 and D.3."""

    def __init__(self, dim: int, classes: int, hidden: int | None = None):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(dim, hidden), nn.Tanh()) if hidden else nn.Identity()
        self.logits = nn.Linear(hidden or dim, classes)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        return self.logits(self.hidden(features))


class VisionTransformer(nn.Module):
    """The Vision Transformer: patches, class token, positions, encoder, final LayerNorm, head.

    Weights start as truncated normals of standard deviation 0.02 with zero biases; the head starts at zero.

    Raises: ValueError for images that are not of the config's size and channels, or hold NaN; TypeError for integers.
    Source: Equations 1 to 4.
    Differs: with pooling "mean" the class token stays in the sequence but is left out of the mean; the model
    of the paper's trial (D.3) had no class token.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config.patch_size, config.channels, config.dim)
        self.class_token = ClassToken(config.dim)
        if config.positions == "none":
            self.position_embedding = nn.Identity()
        else:
            self.position_embedding = PositionEmbedding(config.rows, config.cols, config.dim, config.positions)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = Encoder(config.depth, config.dim, config.heads, config.hidden, config.dropout)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.head = ClassificationHead(config.dim, config.classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        expected = (self.config.channels, self.config.height, self.config.width)
        if isinstance(images, Tensor) and images.ndim == 4 and images.shape[1:] != expected:
            told = f"images of (channels, height, width) {tuple(images.shape[1:])}, but the config says {expected}"
            how = "load_image(source, size) resizes, ViTConfig(image_size=...) makes a model for another size"
            raise ValueError(f"{told}; {how}")
        tokens = self.class_token(self.patch_embedding(images))
        tokens = self.dropout(self.position_embedding(tokens))
        return self.head(self.pool(self.norm(self.blocks(tokens))))

    def pool(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch dim"]:
        """What the classification head reads: the class token, or the mean of the patches."""
        return tokens[:, 0] if self.config.pooling == "class" else tokens[:, 1:].mean(dim=1)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
