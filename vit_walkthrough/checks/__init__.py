"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.checks.attention import (
    check_contribution,
    check_hide_padding,
    check_join,
    check_look_back,
    check_scores,
    check_weights,
)
from vit_walkthrough.checks.encoder import check_block_parameters, check_layer_norm, check_post_norm
from vit_walkthrough.checks.patches import (
    check_count_tokens,
    check_patch_of_pixel,
    check_patchify_kernel,
    check_unpatchify,
)
from vit_walkthrough.checks.trial import predict

__all__ = [
    "check_block_parameters",
    "check_contribution",
    "check_count_tokens",
    "check_hide_padding",
    "check_join",
    "check_layer_norm",
    "check_look_back",
    "check_patch_of_pixel",
    "check_patchify_kernel",
    "check_post_norm",
    "check_scores",
    "check_unpatchify",
    "check_weights",
    "predict",
]
