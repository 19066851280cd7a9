"""The largest peer by its numbers, and 2,000 damaged checkpoints: equal logits or a clear error, never silent."""

import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from tests.peers.conftest import build  # noqa: F401  a fixture
from tests.peers.test_weights import equal_inside
from tests.weights.test_convert import config, write  # noqa: F401  fixtures
from vit_walkthrough import ViTConfig, count_parameters
from vit_walkthrough.weights.checkpoint import load_checkpoint, save_checkpoint
from vit_walkthrough.weights.convert import SOURCES, convert_weights


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_the_whole_of_l_16_agrees(build, library):  # noqa: F811
    theirs = build(library, ViTConfig.named("L/16"))
    model = convert_weights(theirs, library)
    assert count_parameters(model) == 304_326_632
    equal_inside(model, theirs)


DAMAGES = [  # missing, renamed, twice, misshapen or nested: the tensors that stand in place of one, by their names
    lambda name, one, dice: {},
    lambda name, one, dice: {name.replace(dice.choice(name), dice.choice("xyz_."), 1): one},
    lambda name, one, dice: {name: one, dice.choice(["vit.", "module.", "encoder."]) + name: one},
    lambda name, one, dice: {name: dice.choice((one[None], one.flatten(), one[..., :-1], one[:0]))},
    lambda name, one, dice: {name: dice.choice(({"w": one}, [one], None, 7))},
]


@pytest.mark.parametrize("block", range(20))
def test_damaged_checkpoints_give_equal_logits_or_a_clear_error(tmp_path, model, write, block):  # noqa: F811
    refused, images = 0, torch.rand(2, 3, 12, 12)
    for seed in range(100 * block, 100 * (block + 1)):
        dice = random.Random(seed)
        source = dice.choice((*SOURCES[:3], "own"))
        state = dict(model.state_dict()) if source == "own" else write(source)
        for _ in range(dice.randint(1, 2)):
            name = dice.choice(sorted(name for name in state if isinstance(state[name], torch.Tensor)))
            state |= dice.choice(DAMAGES)(name, state.pop(name), dice)
        try:
            if source == "own":
                path = tmp_path / "vit.safetensors"
                save_checkpoint(path, model)
                with safe_open(path, framework="pt") as file:
                    facts = file.metadata()
                tensors = {name: one.clone() for name, one in state.items() if isinstance(one, torch.Tensor)}
                save_file(tensors, path, facts)
                loaded = load_checkpoint(path)[0]
            else:
                loaded = convert_weights(state, source, heads=4)
        except ValueError:
            refused += 1
        else:
            assert_close(loaded(images), model(images), rtol=0, atol=1e-4)
    assert refused > 50
