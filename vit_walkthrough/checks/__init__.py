"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.checks.patches import (
    check_count_tokens,
    check_patch_of_pixel,
    check_patchify_kernel,
    check_unpatchify,
)
from vit_walkthrough.checks.trial import predict

__all__ = [
    "check_count_tokens",
    "check_patch_of_pixel",
    "check_patchify_kernel",
    "check_unpatchify",
    "predict",
]
