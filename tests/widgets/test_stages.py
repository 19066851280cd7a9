"""What the panels over untrained stages say and show, computed again by other means."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.widgets.panels import carried, numbers, turn
from vit_walkthrough import MultiHeadSelfAttention, data, patchify, widgets


@pytest.mark.parametrize(("size", "name"), [*zip((4, 32, 224), data.PHOTOS, strict=True)])
def test_explore_patches_cuts_the_photo_and_counts(spy, size, name):
    grids, tiles, panel = spy("plot_grid"), spy("plot_patches"), widgets.explore_patches()
    turn(panel, patch_size=size, photo_name=name)
    patches, image, last = (224 // size) ** 2, data.photo(name, 224), tiles[-1][0][0][-1]
    said = numbers(panel.text, r"= ([\d,]+) patches.* token ([\d,]+) tokens.* = ([\d,]+) numbers.* ([\d,]+) pairs")
    assert said == [patches, patches + 1, 3 * size**2, (patches + 1) ** 2]
    torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
    torch.testing.assert_close(last.reshape(3, size, size), image[:, -size:, -size:], rtol=0, atol=0)


@pytest.mark.parametrize("heads", [1, 12, 48])
def test_explore_heads_shows_that_heads_cost_no_parameters(heads):
    panel = widgets.explore_heads()
    turn(panel, heads=heads)
    patches = patchify(data.photo("cat")[None], 28)[0]
    projection = torch.randn(2352, 48, generator=torch.Generator().manual_seed(0)) / 2352**0.5
    tokens = F.layer_norm((patches - patches.mean(0)) @ projection, (48,))
    torch.manual_seed(0)
    qkv = MultiHeadSelfAttention(48, heads).qkv(tokens).detach()
    queries, keys, _ = qkv.unflatten(-1, (3, heads, 48 // heads)).permute(1, 2, 0, 3)
    expected = (queries @ keys.mT / (48 / heads) ** 0.5).softmax(-1)
    np.testing.assert_allclose(carried(panel.figure)["weights"][0], expected, atol=0.51 / 255)
    said = numbers(panel.text, r"^(\d+) .* = (\d+), ([\d,]+) p.* gets ([\d.]+) .* and ([\d.]+) in .* be ([\d.]+)\.$")
    peaks = expected.amax(-1).mean(-1)
    assert said[:3] == [heads, 48 / heads, 4 * 48 * 48 + 4 * 48]
    assert said[3:] == pytest.approx([peaks.min().item(), peaks.max().item(), 1 / 64], abs=6e-4)
