"""Rollout and attention distance, written once more in loops over plain NumPy numbers, on a peer's own attention."""

import math

import numpy as np
import pytest
import torch

from vit_walkthrough import ViTConfig, record
from vit_walkthrough.look.explain import attention_distance, rollout
from vit_walkthrough.weights.checkpoint import convert_weights

CONFIG = ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=3, heads=4, hidden=48, classes=5)


@pytest.fixture(params=["timm", "transformers"])
def both(build, request):
    """The attention that the peer computed as NumPy numbers, and that of our converted model as it was recorded."""
    theirs = build(request.param, CONFIG)
    model = convert_weights(theirs.model.state_dict(), request.param, heads=4, grid=(3, 5))
    images = torch.rand(2, 3, 12, 20)
    with torch.no_grad(), record(model) as trace:
        model(images)
    return np.stack([layer.double().numpy() for layer in theirs.see(images).attention]), trace.attention


def test_rollout_in_loops(both):
    theirs, ours = both
    blocks, batch, heads, tokens, _ = theirs.shape
    arrived = rollout(ours)
    for image in range(batch):
        product = np.eye(tokens)
        for layer in range(blocks):
            mixed = np.zeros((tokens, tokens))
            for query in range(tokens):
                for key in range(tokens):
                    mixed[query, key] = sum(theirs[layer, image, head, query, key] for head in range(heads)) / heads
                mixed[query, query] += 1
                mixed[query] /= sum(mixed[query])
            following = np.zeros((tokens, tokens))
            for query in range(tokens):
                for key in range(tokens):
                    following[query, key] = sum(mixed[query, middle] * product[middle, key] for middle in range(tokens))
            product = following
        np.testing.assert_allclose(arrived[image].numpy(), product, rtol=0, atol=1e-5)


def test_attention_distance_in_loops(both):
    theirs, ours = both
    blocks, batch, heads, tokens, _ = theirs.shape
    measured = attention_distance(ours, CONFIG.rows, CONFIG.cols, CONFIG.patch_size).numpy()
    centres = [((row + 0.5) * 4, (col + 0.5) * 4) for row in range(3) for col in range(5)]
    for layer in range(blocks):
        for head in range(heads):
            distances = []
            for image in range(batch):
                for query in range(1, tokens):
                    weights = theirs[layer, image, head, query, 1:]
                    pairs = zip(weights / sum(weights), centres, strict=True)
                    distances.append(sum(weight * math.dist(centres[query - 1], centre) for weight, centre in pairs))
            assert measured[layer, head] == pytest.approx(sum(distances) / len(distances), abs=1e-4)
    assert np.ptp(measured) > 0.2
