"""What draws a model, standing still: plots of arrays and schematics of a config."""

from vit_walkthrough.draw.images import (
    blend,
    plot_attention,
    plot_filters,
    plot_grid,
    plot_heads,
    plot_image,
    plot_maps,
    plot_matrix,
    plot_patches,
    plot_similarity,
)
from vit_walkthrough.draw.plots import plot_bars, plot_curves, plot_dots, plot_probabilities
from vit_walkthrough.draw.schematics import draw_block, draw_heads
from vit_walkthrough.draw.theme import ROLES, render, show, side_by_side, style
