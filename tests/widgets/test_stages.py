"""What the panel over a single stage says and shows, computed again by other means."""

import pytest
import torch

from tests.widgets.panels import numbers, turn
from vit_walkthrough import data, widgets


@pytest.mark.parametrize(("size", "name"), [*zip((4, 32, 224), data.PHOTOS, strict=True)])
def test_explore_patches_cuts_the_photo_and_counts(spy, size, name):
    grids, tiles, panel = spy("plot_grid"), spy("plot_patches"), widgets.explore_patches()
    turn(panel, patch_size=size, photo_name=name)
    patches, image, last = (224 // size) ** 2, data.photo(name, 224), tiles[-1][0][0][-1]
    said = numbers(panel.text, r"= ([\d,]+) patches.* token ([\d,]+) tokens.* = ([\d,]+) numbers.* ([\d,]+) pairs")
    assert said == [patches, patches + 1, 3 * size**2, (patches + 1) ** 2]
    torch.testing.assert_close(grids[-1][0][0], image, rtol=0, atol=0)
    torch.testing.assert_close(last.reshape(3, size, size), image[:, -size:, -size:], rtol=0, atol=0)
