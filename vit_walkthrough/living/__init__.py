"""What draws a model in the page itself: pictures that answer to the pointer, without a kernel."""

from vit_walkthrough.living.explore import explore
