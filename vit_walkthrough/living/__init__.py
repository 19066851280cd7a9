"""What draws a model in the page itself: pictures that compute under the pointer, without kernel and network."""

from vit_walkthrough.living.pictures import live
