"""check_*: the reader's own function, tried beside a slow version that is surely right; and what is wrong with it."""

from vit_walkthrough.exercises.attention import (
    check_contribution,
    check_hide_padding,
    check_join,
    check_look_back,
    check_scores,
    check_weights,
)
from vit_walkthrough.exercises.built import check_to_windows, check_turn
from vit_walkthrough.exercises.encoder import check_block_parameters, check_layer_norm, check_post_norm
from vit_walkthrough.exercises.explain import check_duels, check_relevance, check_rollout
from vit_walkthrough.exercises.model import check_added_parameters, check_largest_side, check_mean_over
from vit_walkthrough.exercises.otherwise import check_hidden_error, check_soft_loss
from vit_walkthrough.exercises.patches import check_patch_of_pixel, check_patchify_kernel, check_unpatchify
from vit_walkthrough.exercises.positions import check_is_blind_to_order, check_keep, check_positions_2d
from vit_walkthrough.exercises.start import check_count_tokens, check_most_attended, check_probabilities
from vit_walkthrough.exercises.tokens import check_count_learned, check_embed
from vit_walkthrough.exercises.training import check_confusions, check_cross_entropy, check_learning_rate
from vit_walkthrough.exercises.weights import check_folded, check_projection

__all__ = [name for name in dir() if name.startswith("check_")]
