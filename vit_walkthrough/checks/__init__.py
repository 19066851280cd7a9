"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.checks.model import (
    check_added_parameters,
    check_largest_side,
    check_mean_over,
    check_stack,
)
from vit_walkthrough.checks.patches import (
    check_count_tokens,
    check_patch_of_pixel,
    check_patchify_kernel,
    check_unpatchify,
)
from vit_walkthrough.checks.training import (
    check_clip,
    check_confusions,
    check_cross_entropy,
    check_learning_rate,
)
from vit_walkthrough.checks.trial import predict

__all__ = [
    "check_added_parameters",
    "check_clip",
    "check_confusions",
    "check_count_tokens",
    "check_cross_entropy",
    "check_largest_side",
    "check_learning_rate",
    "check_mean_over",
    "check_patch_of_pixel",
    "check_patchify_kernel",
    "check_stack",
    "check_unpatchify",
    "predict",
]
