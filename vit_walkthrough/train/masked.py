"""Learning without labels: a masked autoencoder sees a quarter of the patches and fills in the others."""

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.encoder import Encoder
from vit_walkthrough.model.patches import patchify
from vit_walkthrough.model.tokens import PositionEmbedding
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.loop import init_model, plain_torch, schedule, seeded, set_rates
from vit_walkthrough.train.optimizers import muon
from vit_walkthrough.weights.checkpoint import TINY, in_full

CONFIG = ViTConfig(48, 8, dim=64, depth=4, heads=4, hidden=128, classes=10, pooling="mean")
STEPS = 3000


class MaskedAutoencoder(nn.Module):
    """A ViT that sees only some patches, and two more blocks that say what is in all of them.

    encoder: its class token and its patches that are not hidden pass its blocks; nothing stands for the hidden ones.
    In front of the two blocks, one learned token stands in the place of each hidden patch. share: of hidden patches.
    Raises: ValueError if none is hidden, or none left. Source: He et al. 2022, arXiv 2111.06377."""

    def __init__(self, encoder: VisionTransformer, share: float = 0.75):
        super().__init__()
        config = encoder.config
        self.encoder, self.seen = encoder, round((1 - share) * config.patches)
        if not 0 < self.seen < config.patches:
            told = f"with a share of {share}, {self.seen} of {config.patches} patches are seen"
            raise ValueError(f"{told}; choose a share that hides some and leaves some, as 0.75")
        self.hidden_token = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))
        self.positions = PositionEmbedding(config.rows, config.cols, config.dim, "sincos")
        self.blocks = Encoder(2, config.dim, config.heads, config.hidden)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.pixels = nn.Linear(config.dim, config.patch_dim)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch patches patch_dim"], Bool[Tensor, "batch patches"]]:
        """What it believes of every patch, and which patches were hidden; torch's generator chooses them."""
        encoder, batch = self.encoder, len(images)
        tokens = encoder.class_token(encoder.patch_embedding(images))
        tokens = encoder.position_embedding(tokens)
        count, dim = tokens.shape[1] - 1, tokens.shape[2]
        order = torch.rand(batch, count, device=images.device).argsort(dim=1)
        seen = order[:, : self.seen]
        places = seen[..., None].expand(-1, -1, dim)
        visible = tokens[:, 1:].gather(1, places)
        read = encoder.norm(encoder.blocks(torch.cat([tokens[:, :1], visible], dim=1)))
        patches = self.hidden_token.expand(batch, count, dim).scatter(1, places, read[:, 1:])
        tokens = self.positions(torch.cat([read[:, :1], patches], dim=1))
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)
        return self.pixels(self.norm(self.blocks(tokens))[:, 1:]), hidden


def init_masked(data, seed: int = 0) -> MaskedAutoencoder:
    """The untrained autoencoder; its matrices start with Xavier's numbers, as in `init_model`."""
    encoder = init_model(CONFIG, data, seed)
    with seeded(seed):
        model = MaskedAutoencoder(encoder)
        for part in (*model.blocks.modules(), model.pixels):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
    return model


@plain_torch()
def reconstruct(model: MaskedAutoencoder, data, *, steps: int = STEPS, batch_size: int = 128, seed: int = 0):
    """Train the autoencoder in place on data.sample(batch_size, draw=step), without the labels. Its loss is the mean
    squared error on the patches that were hidden. Returns it for every step."""
    optimizer, losses = muon(model.train(), 4e-3, 0.05), []
    for step in range(steps):
        set_rates(optimizer, schedule(step, steps))
        images = data.sample(batch_size, draw=step)[0]
        with seeded(1_000_003 * seed + step):
            believed, hidden = model(images)
        loss = (believed - patchify(images, model.encoder.config.patch_size))[hidden].square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def load_masked(seed: int = 0) -> MaskedAutoencoder:
    """An autoencoder that was trained on all training scans, from seed 0, 1 or 2."""
    with seeded(0):
        model = MaskedAutoencoder(VisionTransformer(CONFIG))
    model.load_state_dict(in_full(load_file(TINY / f"masked_s{seed}.safetensors")))
    return model.eval()
