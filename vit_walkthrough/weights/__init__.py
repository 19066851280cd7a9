"""What fills a model: our own checkpoints, the bundled tiny ViTs, and weights that others published."""

from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint, load_cued, load_tiny, save_checkpoint
from vit_walkthrough.weights.convert import convert_weights, tensor_names
from vit_walkthrough.weights.published import Preprocessing, Pretrained, load_pretrained
