"""2,000 odd checkpoints: each gives the logits of the model that it was made from, or a clear error, and is never
loaded as something else in silence."""

import random
from functools import partial

import pytest
import torch
from torch import Tensor

from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.weights import convert_weights, load_checkpoint, save_checkpoint, tensor_names
from vit_walkthrough.weights.checkpoint import read_tensors, write_tensors

SOURCES = ("timm", "torchvision", "transformers")


def drawn(dice: random.Random, randomize) -> VisionTransformer:
    """A small ViT of random sizes, every weight random."""
    heads, side, patch_size = dice.choice([1, 2, 4]), dice.randint(1, 4), dice.choice([2, 4])
    torch.manual_seed(dice.getrandbits(32))
    sizes = dict(dim=heads * 8, depth=dice.randint(1, 12), heads=heads, hidden=dice.randint(1, 20))
    return randomize(VisionTransformer(ViTConfig(side * patch_size, patch_size, classes=dice.randint(1, 9), **sizes)))


def spelled(model: VisionTransformer, source: str) -> dict[str, Tensor]:
    """The model's weights as the source spells and lays them out."""
    config, state, found = model.config, model.state_dict(), {}
    for ours, theirs in tensor_names(source, config.depth).items():
        if ours in state:
            tensor = state[ours].clone()
            if ours == "patch_embedding.projection.weight":
                tensor = tensor.reshape(config.dim, config.channels, config.patch_size, config.patch_size)
            found |= dict(zip(theirs, tensor.chunk(len(theirs)), strict=True))
    return found


def changed(state: dict[str, Tensor], dice: random.Random) -> dict:
    """One thing in the checkpoint is another than it was."""
    state = dict(state)
    name = dice.choice(list(state))
    tensor = state[name]
    match dice.randrange(9):
        case 0:
            del state[name]
        case 1:
            state[name + dice.choice([".copy", "_1", " "])] = tensor.clone()
        case 2:
            shapes = [tensor.flatten()[:-1], tensor[None], tensor.flatten()[None], torch.cat([tensor, tensor])]
            state[name] = dice.choice(shapes)
        case 3:
            place = dice.randrange(len(name))
            state[name[:place] + dice.choice(".x0_") + name[place + dice.randint(0, 1) :]] = state.pop(name)
        case 4:
            state = {dice.choice(["model", "state_dict", "weights"]): state}
        case 5:
            prefix = dice.choice(["module.", "_orig_mod.", "vit.", "backbone."])
            state = {prefix + name: tensor for name, tensor in state.items()}
        case 6:
            kind = dice.choice([torch.float64, torch.int8, torch.bool, torch.complex64])
            state[name] = tensor.to(kind)
        case 7:
            state[name] = dice.choice([None, "weights", [1.0, 2.0], tensor.tolist(), 3.0])
        case 8:
            other = dice.choice(list(state))
            if state[other].shape != tensor.shape:  # of two of one shape nobody can tell
                state[name], state[other] = state[other], tensor
    return state


@pytest.mark.parametrize("part", range(10))
@pytest.mark.usefixtures("unchecked")
def test_a_bare_checkpoint_is_the_same_model_or_an_error(part, randomize):
    loaded = 0
    for seed in range(150 * part, 150 * part + 150):
        dice = random.Random(seed)
        model, source = drawn(dice, randomize), dice.choice(SOURCES)
        state = spelled(model, source)
        if dice.random() < 0.9:
            state = changed(state, dice)
        loaded += same_or_refused(seed, model, partial(convert_weights, state, source, heads=model.config.heads))
    assert 10 < loaded < 100  # of both kinds


@pytest.mark.parametrize("part", range(5))
@pytest.mark.usefixtures("unchecked")
def test_a_file_of_ours_is_the_same_model_or_an_error(part, randomize, tmp_path):
    loaded = 0
    for seed in range(100 * part, 100 * part + 100):
        dice = random.Random(f"ours {seed}")
        model, path = drawn(dice, randomize), tmp_path / f"{seed}.safetensors"
        save_checkpoint(path, model)
        tensors, facts = read_tensors(path)
        if dice.random() < 0.6:
            tensors = {name: one for name, one in changed(tensors, dice).items() if isinstance(one, Tensor)}
            write_tensors(path, tensors, **facts)
        elif dice.random() < 0.5:
            content = bytearray(path.read_bytes())
            if dice.random() < 0.5:
                del content[dice.randrange(len(content)) :]
            else:  # a bit of the header is another; one of a number nobody could notice
                content[dice.randrange(8 + int.from_bytes(content[:8], "little"))] ^= 1 << dice.randrange(8)
            path.write_bytes(content)
        loaded += same_or_refused(seed, model, lambda path=path: load_checkpoint(path)[0])
    assert 10 < loaded < 80


def same_or_refused(seed: int, model: VisionTransformer, load) -> bool:
    """Whether it was loaded, and then as the same model."""
    config = model.config
    images = torch.rand(2, config.channels, config.height, config.width)
    try:
        other = load()
    except (ValueError, TypeError) as error:
        said = str(error)
    else:
        assert torch.allclose(other(images), model(images), atol=1e-4), seed
        return True
    assert len(said) > 20, seed
    return False
