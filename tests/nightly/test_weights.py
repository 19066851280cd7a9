"""The largest peer by its numbers."""

import pytest

from tests.peers.conftest import build  # noqa: F401  a fixture
from tests.peers.test_weights import equal_inside
from vit_walkthrough import ViTConfig, count_parameters
from vit_walkthrough.weights.convert import convert_weights


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_the_whole_of_l_16_agrees(build, library):  # noqa: F811
    theirs = build(library, ViTConfig.named("L/16"))
    model = convert_weights(theirs, library)
    assert count_parameters(model) == 304_326_632
    equal_inside(model, theirs)
