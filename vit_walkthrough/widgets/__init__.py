"""Controls over one plot each. Whatever is turned is computed anew; nothing is chosen from pictures made beforehand.

Works on ipywidgets 7.7 and 8. A picture is an <img> in a widgets.HTML, which every front end shows once and nbval can
read, and every panel brings a still picture of its first state for pages on which no kernel runs.
"""

from vit_walkthrough.widgets.models import explore_heads, explore_patches, explore_resolution, explore_vit
from vit_walkthrough.widgets.panel import Panel
from vit_walkthrough.widgets.published import explore_published
from vit_walkthrough.widgets.training import train_and_look
