"""explain.py: every map against the same map computed by loops in NumPy, every measure against a known case."""

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vit_walkthrough import VisionTransformer, record
from vit_walkthrough.look import explain
from vit_walkthrough.look.intervene import intervene


@pytest.fixture
def attention():
    """(blocks, batch, heads, queries, keys) for a class token and 3 x 5 patches, far from uniform."""
    return (2 * torch.randn(3, 2, 4, 16, 16)).softmax(dim=-1)


def test_rollout_equals_the_equations_in_numpy(attention):
    arrived = np.eye(16)
    for block in attention.double().numpy():
        mixed = block.mean(axis=1) + np.eye(16)
        arrived = mixed / mixed.sum(axis=-1, keepdims=True) @ arrived
    assert_close(explain.rollout(attention), torch.tensor(arrived).float(), rtol=0, atol=1e-6)
    assert_close(explain.rollout(attention.double()), torch.tensor(arrived), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("reader", [explain.rollout, lambda one: explain.attention_distance(one, 3, 5, 4)])
def test_rows_that_do_not_sum_to_1_but_for_rounding_are_refused(reader, attention):
    assert_close(reader(1.0009 * attention), reader(attention), rtol=0, atol=0.05)
    for change in (attention.mT, attention / 2, attention * torch.nan, 1.0012 * attention):
        with pytest.raises(ValueError, match=r"^the rows .* do not sum to 1; .* the keys$"):
            reader(change)
    for cut in (attention[0], attention[..., :15]):
        with pytest.raises(ValueError, match=re.escape(str(tuple(cut.shape)))):
            reader(cut)


def test_distance_is_that_of_the_centres_on_a_grid_that_is_not_square(attention):
    patches = attention.double().numpy()[..., 1:, 1:]
    expected = np.zeros(patches.shape[:-1])
    for query, key in np.ndindex(15, 15):
        apart = math.hypot(query // 5 - key // 5, query % 5 - key % 5)
        expected[..., query] += 6 * apart * patches[..., query, key] / patches[..., query, :].sum(axis=-1)
    expected = torch.tensor(expected.mean(axis=(1, 3))).float()
    assert_close(explain.attention_distance(attention, 3, 5, 6), expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"over 16 tokens, but 4 \* 5 patches"):
        explain.attention_distance(attention, 4, 5, 6)


def test_a_patch_that_looks_at_the_class_token_alone_is_left_out_of_the_mean():
    attention = F.one_hot(torch.tensor([[0, 2, 0, 0], [0, 0, 0, 0]]), 4).float()[:, None, None]
    found = explain.attention_distance(attention, 1, 3, 16).flatten().tolist()
    assert found == pytest.approx([16, math.nan], nan_ok=True)


def relevance_by_hand(model: VisionTransformer, image: torch.Tensor, wanted: int | None) -> np.ndarray:
    """One image and one class, Equations 5 and 6 entry by entry."""
    with record(model) as trace:
        logits = model(image[None])[0]
    weights = [trace[f"blocks.{block}.attention.weights"] for block in range(model.config.depth)]
    gradients = torch.autograd.grad(logits[logits.argmax() if wanted is None else wanted], weights)
    count, heads = model.config.tokens, model.config.heads
    arrived = np.eye(count)
    for weight, gradient in zip(weights, gradients, strict=True):
        mixed = np.zeros((count, count))
        for head, query, key in np.ndindex(heads, count, count):
            mixed[query, key] += max((weight[0, head, query, key] * gradient[0, head, query, key]).item(), 0) / heads
        arrived = arrived + mixed @ arrived
    return arrived[0, 1:] if model.config.pooling == "class" else arrived[1:, 1:].mean(axis=0)


@pytest.mark.parametrize(("pooling", "wanted"), [("class", None), ("class", (4, 1)), ("mean", (4, 1))])
def test_relevance_equals_the_equations_written_out(config, randomize, images, pooling, wanted):
    model, images = randomize(VisionTransformer(replace(config, pooling=pooling))).double(), images.double()
    by_hand = [relevance_by_hand(model, image, wanted and wanted[at]) for at, image in enumerate(images)]
    expected = torch.tensor(np.stack(by_hand))
    assert expected.std() > 5e-4
    assert_close(explain.relevance(model, images, wanted), expected, rtol=1e-9, atol=1e-12)
    single = explain.relevance(model.float(), images.float(), wanted)
    assert_close(single, expected.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("mode", "frozen"), [(torch.no_grad, False), (torch.inference_mode, True)])
def test_relevance_works_whatever_of_autograd_is_switched_off(model, images, mode, frozen):
    expected = explain.relevance(model, images)
    model.requires_grad_(not frozen)
    with mode():
        maps = explain.relevance(model, images)
        assert not torch.is_grad_enabled()
    assert torch.equal(maps, expected)
    assert not maps.requires_grad


def test_every_station_of_the_lens_is_the_model_cut_off_there(config, randomize, images):
    model = randomize(
        VisionTransformer(replace(config, depth=11, pooling="mean")), 0.1
    )  # 10 comes after 9, not after 1
    stations, blocks = explain.logit_lens(model, images), list(model.blocks)
    assert (stations.shape, stations.requires_grad) == ((12, 2, 5), False)
    for depth in range(12):
        model.blocks = nn.Sequential(*blocks[:depth])
        assert_close(stations[depth], model(images), rtol=0, atol=1e-5)


def test_position_similarity_is_the_cosine_of_every_pair_of_patches():
    similarity = explain.position_similarity(nn.Parameter(positions := torch.randn(1, 7, 10)))
    assert not similarity.requires_grad
    expected = F.cosine_similarity(positions[0, 1:, None], positions[0, None, 1:], dim=-1)
    assert_close(similarity, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 48), (20, 48)])
def test_principal_filters_are_those_of_numpy_up_to_sign(shape):
    weight = nn.Parameter(torch.randn(shape) + 3)
    most = min(shape)
    filters = explain.principal_filters(weight, most - 1)  # of the last numpy's rounding is another
    assert (filters.shape, filters.requires_grad) == ((most - 1, 48), False)
    assert_close(filters @ filters.T, torch.eye(most - 1), rtol=0, atol=1e-5)
    array = weight.detach().double().numpy()
    _, _, expected = np.linalg.svd(array - array.mean(axis=0))
    along = (filters.double().numpy() * expected[: most - 1]).sum(axis=1)
    np.testing.assert_allclose(np.abs(along), 1, atol=1e-3)
    assert [len(explain.principal_filters(weight, count)) for count in (1, most)] == [1, most]
    for count in (0, most + 1):
        with pytest.raises(ValueError, match=f"count {count} is not between 1 and {most}"):
            explain.principal_filters(weight, count)


@pytest.mark.parametrize(("height", "width", "side"), [(12, 20, 4), (7, 3, 1), (4, 4, 4)])
def test_mass_on_object_is_that_of_the_pixels(height, width, side):
    maps = torch.rand(5, height // side * (width // side))
    maps[0, 1:2] = 0  # a patch may have nothing, if others have something
    masks = torch.rand(5, height, width) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])[:, None, None]
    pixels = F.interpolate(maps.unflatten(1, (1, height // side, -1)), scale_factor=side)[:, 0]
    expected = (pixels * masks).sum(dim=(1, 2)) / pixels.sum(dim=(1, 2))
    assert_close(explain.mass_on_object(maps, masks), expected, rtol=0, atol=1e-5)
    assert_close(explain.mass_on_object(maps / 1000, masks), expected, rtol=0, atol=1e-5)
    assert_close(explain.mass_on_object(maps[:1], masks[:1]), expected[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pixels", "won"), [(0, False), (7, False), (8, True), (16, True)])
def test_the_pointing_game_is_won_with_half_of_the_strongest_patch(pixels, won):
    """The object is a part of the patch in row 1 and column 2; the strongest may be negative: only the order counts."""
    patch = torch.zeros(16, dtype=torch.bool)
    patch[torch.randperm(16)[:pixels]] = True
    masks = torch.zeros(15, 12, 20, dtype=torch.bool)
    masks[:, 4:8, 8:12] = patch.reshape(4, 4)
    strongest = 2 * torch.eye(15) - torch.rand(15, 15)
    strongest[1:] -= 3
    assert explain.pointing_game(strongest, masks).tolist() == [won and place == 7 for place in range(15)]


@pytest.mark.parametrize("measure", [explain.mass_on_object, explain.pointing_game])
def test_maps_of_another_shape_than_the_masks_or_of_no_numbers_are_refused(measure, unchecked):
    shapes = [(shape, (2, 12, 20)) for shape in [(2, 14), (2, 16), (2, 60_000), (2, 0), (1, 15), (15,), (2, 3, 5)]]
    shapes += [((2, 15), shape) for shape in [(2, 1, 12, 20), (12, 20), (2, 12, 21), (2, 3, 20), (2, 0, 0)]]
    for maps, masks in shapes:
        with pytest.raises(ValueError, match=rf"{re.escape(str(maps))} .* {re.escape(str(masks))}"):
            measure(torch.rand(maps), torch.ones(masks, dtype=torch.bool))
    maps, masks = torch.rand(2, 15), torch.ones(2, 12, 20, dtype=torch.bool)
    for maps[1, 3] in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"^a map .* NaN or infinite$"):
            measure(maps, masks)


def test_the_mass_of_negative_and_of_empty_maps_is_refused():
    maps = torch.rand(2, 15)
    for others, lowest in ((1.0, -1e-3), (0.0, 0.0)):
        maps[1], maps[1, 4] = others, lowest
        with pytest.raises(ValueError, match=r"^a map .* from 0 up, and not all 0$"):
            explain.mass_on_object(maps, torch.ones(2, 12, 20, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize("wanted", [None, (4, 1)])
def test_occlusion_is_what_a_cover_takes_of_the_probability(model, images, wanted):
    model, images = model.double(), images.double()
    before = model(images).softmax(-1)
    classes = before.argmax(-1) if wanted is None else torch.tensor(wanted)
    expected = torch.zeros(2, 15, dtype=torch.float64)
    for patch in range(15):
        after = model(explain.cover(images, [patch], model.config.patch_size)).softmax(-1)
        expected[:, patch] = (before - after).gather(1, classes[:, None])[:, 0]
    assert expected.min() < -1e-4  # a class may gain by a cover
    assert expected.max() > 1e-4
    assert_close(explain.occlusion(model, images, wanted), expected, rtol=0, atol=1e-9)


@pytest.fixture(params=[explain.relevance, explain.occlusion])
def ask(request):
    return request.param


def test_classes_may_be_whole_numbers_of_any_kind(ask, model, images, unchecked):
    expected = ask(model, images, torch.tensor([3, 1]))
    for same in (torch.tensor([3, 1]).byte(), [3, 1], np.array([3, 1])):
        assert torch.equal(ask(model, images, same), expected)


@pytest.mark.usefixtures("unchecked")
def test_classes_that_the_model_does_not_have_are_refused(ask, model, images):
    wrong = [[0, 5], [-1, 0], [0], [0, 1, 2], [True, False], [0.0, 1.0], ["0", "1"], [[0], [1, 2]], 3, "31"]
    for classes in (*wrong, torch.tensor([0, 5])):
        with pytest.raises(ValueError, match=r"^classes .* 2 .* 0 to 4, .* not "):
            ask(model, images, classes)


def test_the_model_and_the_images_stay_as_they_were(ask, model, images):
    state, pixels = copy.deepcopy(model.state_dict()), images.clone()
    model.train()
    maps = ask(model, images.requires_grad_(), [0, 1])
    maps.mul_(2)  # what comes out may be changed
    assert not maps.requires_grad
    assert len(ask(model, images[:0], [])) == 0
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in (*model.parameters(), images))
    assert all(block.attention.fused for block in model.blocks)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(images, pixels)


@pytest.mark.usefixtures("unchecked")
def test_a_model_of_another_kind_is_refused(ask, images):
    for call in (lambda other: ask(other, images, [0, 1]), lambda other: explain.logit_lens(other, images)):
        with pytest.raises(TypeError, match=r"Flatten .* VisionTransformer$"):
            call(nn.Flatten())
    with pytest.raises(TypeError, match=r"Flatten .* VisionTransformer$"), intervene(nn.Flatten()):
        raise AssertionError("too late")
