"""vit.js beside torch on many images: all bundled models, in Node."""

import pytest

from tests.living.node import differences
from tests.living.test_vit import assert_every_tensor_equal, options, together
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.weights.checkpoint import bundled, load_checkpoint


@pytest.mark.parametrize("size", bundled(), ids=str)
def test_two_hundred_images_and_every_option_alone_and_together(size, tmp_path):
    model, images = load_checkpoint(bundled()[size])[0], ClutteredDigits("test").sample(200, draw=0)[0]
    assert_every_tensor_equal(model, tmp_path)
    some = [together(model.config, seed) for seed in range(4)]  # 64 combinations with the sixteen models
    for case in ({}, *options(model.config, 1), *some):
        for ending, bound in (("weights", 1e-5), ("output", 1e-4)):
            (worst,) = differences(model, images, [case], tmp_path, ending)
            assert max(worst.values()) < bound, case
