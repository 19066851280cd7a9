"""The helper package of the Vision Transformer walkthrough: one module per stage, and what looks at them.

Importing it loads the stages only; plots, data and widgets are imported by name, where what they need is installed.
"""

from vit_walkthrough.look.trace import Trace, record
from vit_walkthrough.model.attention import MultiHeadSelfAttention, SelfAttention, attend, attention_weights
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.encoder import MLP, Encoder, EncoderBlock
from vit_walkthrough.model.patches import PatchEmbedding, patchify, unpatchify
from vit_walkthrough.model.tokens import ClassToken, PositionEmbedding, resample_positions, sincos_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer, count_parameters
