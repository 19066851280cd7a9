"""The largest peers by their numbers."""

import pytest

from tests.peers.conftest import LIBRARIES, build  # noqa: F401  a fixture
from tests.peers.test_weights import equal_inside
from vit_walkthrough import ViTConfig
from vit_walkthrough.weights.convert import convert_weights


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_whole_of_l_16_agrees(build, library):  # noqa: F811
    theirs = build(library, ViTConfig.named("L/16"))
    equal_inside(convert_weights(theirs, library), theirs)
