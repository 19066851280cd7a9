"""Notebook 07: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from torch import nn

from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.exercises import check_added_parameters, check_largest_side, check_mean_over, check_stack


def built(config, image_size, classes):
    sizes = dict(patch_size=config.patch_size, channels=config.channels, dim=config.dim, depth=1)
    sizes |= dict(heads=config.heads, hidden=config.hidden)
    with torch.device("meta"):
        new = VisionTransformer(ViTConfig(image_size, classes=classes, **sizes))
        old = VisionTransformer(ViTConfig(config.image_size, classes=config.classes, **sizes))
    return sum(p.numel() for p in new.parameters()) - sum(p.numel() for p in old.parameters())


def from_another_config(config, image_size, classes):
    new = ViTConfig(image_size, config.patch_size, dim=config.dim, heads=config.heads, classes=classes)
    return new.dim * (new.tokens - config.tokens + new.classes - config.classes) + new.classes - config.classes


def mean_in_loops(tokens, mask):
    means = []
    for image, wanted in zip(tokens, mask, strict=True):
        chosen = [token for token, wants in zip(image[1:], wanted.tolist(), strict=True) if wants]
        means.append(torch.stack(chosen).mean(0))
    return torch.stack(means)


def mean_by_filling(tokens, mask):
    return tokens[:, 1:].masked_fill(~mask[:, :, None], float("nan")).nanmean(1)


class Listed(nn.Module):
    """The blocks in whatever `container` makes of a list of them; `run` says which are called."""

    def __init__(self, make_block, depth, container=nn.ModuleList, run=lambda blocks: blocks):
        super().__init__()
        self.blocks, self.run = container([make_block() for _ in range(depth)]), run

    def forward(self, tokens):
        for block in self.run(self.blocks):
            tokens = block(tokens)
        return tokens


class Half(nn.Module):
    """One block kept as it should be, the others in a plain list."""

    def __init__(self, blocks):
        super().__init__()
        self.first, self.others = blocks[0], blocks[1:]

    def __iter__(self):
        return iter([self.first, *self.others])


class Added(Listed):
    def forward(self, tokens):
        return super().forward(tokens) + 0.5


class Short(Listed):
    def forward(self, tokens):
        return super().forward(tokens)[:, 0]


def side_by_search(config, budget):
    side = config.patch_size
    while 4 * config.depth * config.heads * ((side // config.patch_size) ** 2 + 1) ** 2 <= budget:
        side += config.patch_size
    return side - config.patch_size


RIGHT = {
    check_added_parameters: [built, from_another_config],
    check_mean_over: [mean_in_loops, mean_by_filling],
    check_stack: [Listed, lambda make_block, depth: nn.Sequential(*(make_block() for _ in range(depth)))],
    check_largest_side: [
        side_by_search,
        lambda c, budget: int((((budget / (4 * c.depth * c.heads)) ** 0.5) - 1) ** 0.5) * c.patch_size,
    ],
}

REMARKED = {
    check_added_parameters: [
        (lambda *given: built(*given) + given[0].hidden, "The positions change by +140 and the head by +22")
    ],
    check_stack: [
        (lambda make_block, depth: nn.Sequential(*[make_block] * depth), "make_block takes no arguments"),
        (lambda make_block, depth: Listed(lambda: make_block, depth, list), "make_block takes no arguments"),
        (lambda make_block, depth: Listed(make_block, depth, Half), "parameters() sees 1 of them, but there are 3"),
        (lambda make_block, depth: Listed(make_block, depth, run=lambda blocks: blocks[:1]), "make 123 of 0"),
        (Added, "'0 becomes': '123.5'"),
        (Short, "'0 becomes': 'a tensor of shape (1, 3)'"),
    ],
    check_largest_side: [
        (lambda config, budget: side_by_search(config, budget) + 1, "17 pixels cannot be cut into whole patches of 8"),
        (lambda config, budget: side_by_search(config, budget) * 2, "With 32 pixels the maps take 6,936 bytes, more"),
        (lambda config, budget: config.patch_size if budget > 600 else 16, "There is room for more: with 10 pixels"),
    ],
}
