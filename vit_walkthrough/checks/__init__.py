"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.checks.patches import check_patch_of_pixel, check_patchify_kernel, check_unpatchify
from vit_walkthrough.checks.positions import check_is_blind_to_order, check_keep, check_positions_2d
from vit_walkthrough.checks.start import check_count_tokens, check_most_attended, check_probabilities
from vit_walkthrough.checks.tokens import check_add_registers, check_count_learned, check_embed
from vit_walkthrough.checks.trial import predict

__all__ = [
    "check_add_registers",
    "check_count_learned",
    "check_count_tokens",
    "check_embed",
    "check_is_blind_to_order",
    "check_keep",
    "check_most_attended",
    "check_patch_of_pixel",
    "check_patchify_kernel",
    "check_positions_2d",
    "check_probabilities",
    "check_unpatchify",
    "predict",
]
