"""explain.py: every map against the same map computed by loops in NumPy, every measure against a known case."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.look.explain import (
    attention_distance,
    attention_entropy,
    deletion_curve,
    insertion_curve,
    logit_lens,
    mass_on_object,
    occlusion,
    pointing_game,
    position_similarity,
    principal_filters,
    relevance,
    rollout,
)
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer

CURVES = {"deletion": deletion_curve, "insertion": insertion_curve}


@pytest.fixture
def attention():
    """(blocks, batch, heads, queries, keys) for a class token and 3 x 5 patches, far from uniform."""
    return (2 * torch.randn(3, 2, 4, 16, 16)).softmax(dim=-1)


def one_hot(*looked_at: int) -> torch.Tensor:
    """One layer, one image, one head in which each query looks at one key alone."""
    return F.one_hot(torch.tensor(looked_at), len(looked_at)).float()[None, None, None]


def uniform(tokens: int) -> torch.Tensor:
    return torch.full((1, 1, 1, tokens, tokens), 1 / tokens)


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A matrix product, entry by entry."""
    result = np.zeros((len(left), right.shape[1]))
    for row in range(len(left)):
        for col in range(right.shape[1]):
            for middle in range(len(right)):
                result[row, col] += left[row, middle] * right[middle, col]
    return result


# --- rollout -----------------------------------------------------------------------------------------------------


def rollout_by_loops(attention: np.ndarray) -> np.ndarray:
    _, batch, heads, tokens, _ = attention.shape
    arrived = np.zeros((batch, tokens, tokens))
    for image in range(batch):
        arrived[image] = np.eye(tokens)
        for layer in attention:
            mixed = np.eye(tokens)
            for head in range(heads):
                mixed += layer[image, head] / heads
            for query in range(tokens):
                mixed[query] /= mixed[query].sum()
            arrived[image] = product(mixed, arrived[image])
    return arrived


def test_rollout_equals_the_loops(attention):
    expected = rollout_by_loops(attention.double().numpy())
    assert_close(rollout(attention), torch.tensor(expected).float(), rtol=0, atol=1e-6)
    assert_close(rollout(attention.double()), torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 12])
def test_the_rows_of_a_rollout_sum_to_1_after_every_layer(layers):
    attention = (3 * torch.randn(layers, 2, 3, 50, 50)).softmax(dim=-1)
    for depth in range(1, layers + 1):
        arrived = rollout(attention[:depth])
        assert arrived.shape == (2, 50, 50)
        assert (arrived >= 0).all()
        assert_close(arrived.sum(dim=-1), torch.ones(2, 50), rtol=0, atol=1e-6)


def test_the_rollout_of_tokens_that_look_at_themselves_is_the_identity():
    attention = torch.eye(7).expand(4, 2, 3, 7, 7)
    assert torch.equal(rollout(attention), torch.eye(7).expand(2, 7, 7))


def test_half_of_every_token_stays_where_it_is_in_every_layer():
    """Everyone looks at the class token; without the identity nothing else would be left after one layer."""
    arrived = rollout(one_hot(0, 0, 0, 0, 0).expand(3, 1, 1, 5, 5))[0]
    expected = torch.eye(5) / 8
    expected[:, 0] += 7 / 8
    assert torch.equal(arrived, expected)
    assert not torch.equal(arrived, one_hot(0, 0, 0, 0, 0)[0, 0, 0])


def test_the_first_layer_comes_first():
    """First 1 takes from 2, then the class token takes from 1: a quarter of 2 has come to the class token."""
    attention = torch.cat([one_hot(0, 2, 2), one_hot(1, 1, 2)])
    assert rollout(attention)[0, 0].tolist() == [0.5, 0.25, 0.25]
    assert rollout(attention.flip(0))[0, 0].tolist() == [0.5, 0.5, 0.0]


def test_images_are_rolled_out_each_by_itself(attention):
    both = rollout(attention)
    for image in range(2):
        assert_close(rollout(attention[:, image : image + 1]), both[image : image + 1])


def test_before_the_first_layer_every_token_holds_itself_alone(attention):
    assert torch.equal(rollout(attention[:0]), torch.eye(16).expand(2, 16, 16))


def test_rollout_reads_what_record_saw(model, images):
    with record(model) as trace, torch.no_grad():
        model(images)
    assert rollout(trace.attention).shape == (2, 16, 16)
    expected = rollout_by_loops(trace.attention.double().numpy())
    assert_close(rollout(trace.attention), torch.tensor(expected).float(), rtol=0, atol=1e-6)


# --- what is refused of attention --------------------------------------------------------------------------------

READERS = {
    "rollout": rollout,
    "distance": lambda attention: attention_distance(attention, 3, 5, 4),
    "entropy": attention_entropy,
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


def test_attention_whose_last_axis_is_the_queries_is_refused(reader, attention):
    with pytest.raises(
        ValueError, match=r"^the rows of the attention do not sum to 1; its last axis must be the keys$"
    ):
        reader(attention.transpose(-2, -1))


@pytest.mark.parametrize("change", [lambda a: a / 2, lambda a: a.log(), lambda a: a * torch.nan])
def test_scores_that_are_no_weights_are_refused(reader, attention, change):
    with pytest.raises(ValueError, match="do not sum to 1"):
        reader(change(attention))


def test_rows_may_miss_1_by_a_thousandth(reader, attention):
    """As they do in half precision."""
    reader(1.0009 * attention)
    with pytest.raises(ValueError, match="do not sum to 1"):
        reader(1.0012 * attention)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_in_half_precision_is_read(reader, dtype):
    attention = torch.randn(3, 32, 4, 16, 16).softmax(dim=-1).to(dtype)
    assert (attention.float().sum(dim=-1) - 1).abs().max() < 5e-3
    assert_close(
        reader(attention), reader(attention.float() / attention.float().sum(-1, keepdim=True)), rtol=0, atol=0.05
    )
    with pytest.raises(ValueError, match="do not sum to 1"):
        reader(1.02 * attention)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("change", [lambda a: a[0], lambda a: a[..., :15], lambda a: a[None]])
def test_attention_of_another_shape_is_refused(reader, attention, change):
    with pytest.raises(ValueError, match=r"^attention must be \(blocks batch heads queries keys\), as trace"):
        reader(change(attention))


# --- attention distance ------------------------------------------------------------------------------------------


def distance_by_loops(attention: np.ndarray, rows: int, cols: int, patch_size: int) -> np.ndarray:
    blocks, batch, heads, tokens, _ = attention.shape
    result = np.zeros((blocks, heads))
    for layer, image, head in np.ndindex(blocks, batch, heads):
        for query in range(1, tokens):
            row = attention[layer, image, head, query]
            total = 0.0
            for key in range(1, tokens):
                down = (key - 1) // cols - (query - 1) // cols
                right = (key - 1) % cols - (query - 1) % cols
                total += row[key] * patch_size * math.sqrt(down**2 + right**2)
            result[layer, head] += total / row[1:].sum() / (rows * cols) / batch
    return result


@pytest.mark.parametrize(("side", "patch_size", "pixels"), [(14, 16, 116.49), (7, 32, 115.50), (8, 4, 16.55)])
def test_the_distance_of_uniform_attention_is_the_one_of_the_paper(side, patch_size, pixels):
    distance = attention_distance(uniform(side * side + 1), side, side, patch_size)
    assert distance.shape == (1, 1)
    assert distance.item() == pytest.approx(pixels, abs=0.005)


@pytest.mark.parametrize(("rows", "cols", "patch_size"), [(3, 5, 4), (14, 14, 16), (30, 31, 14)])
def test_who_looks_at_itself_looks_no_distance(rows, cols, patch_size):
    attention = torch.eye(rows * cols + 1).expand(2, 1, 3, -1, -1)
    assert torch.equal(attention_distance(attention, rows, cols, patch_size), torch.zeros(2, 3))


@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (5, 3), (1, 15), (15, 1)])
def test_distance_equals_the_loops_on_grids_that_are_not_square(attention, rows, cols):
    expected = distance_by_loops(attention.double().numpy(), rows, cols, 6)
    distance = attention_distance(attention, rows, cols, 6)
    assert distance.shape == (3, 4)
    assert_close(distance, torch.tensor(expected).float(), rtol=0, atol=1e-4)


def test_one_step_to_the_right_is_the_width_of_a_patch():
    assert attention_distance(one_hot(0, 2, 3, 2), 1, 3, 16).item() == 16
    assert attention_distance(one_hot(0, 2, 3, 2), 3, 1, 16).item() == 16
    assert attention_distance(one_hot(0, 4, 3, 2, 1), 2, 2, 10).item() == pytest.approx(10 * math.sqrt(2))


def test_the_class_token_counts_neither_as_query_nor_as_key(attention):
    louder = attention.clone()
    louder[..., 1:, :] *= 0.1
    louder[..., 1:, 0] += 0.9
    louder[..., 0, :] = torch.eye(16)[7]
    expected = attention_distance(attention, 3, 5, 4)
    assert_close(attention_distance(louder, 3, 5, 4), expected, rtol=0, atol=1e-4)


def test_a_patch_that_looks_at_the_class_token_alone_is_left_out_of_the_mean():
    assert attention_distance(one_hot(0, 2, 0, 0), 1, 3, 16).item() == 16
    assert attention_distance(one_hot(0, 0, 0, 0), 1, 3, 16).isnan().all()


@pytest.mark.parametrize("grid", [(4, 4), (3, 4), (0, 0), (16, 1)])
def test_a_grid_that_does_not_fit_is_refused(attention, grid):
    with pytest.raises(ValueError, match=rf"^attention over 16 tokens, but {grid[0]} \* {grid[1]} patches and a class"):
        attention_distance(attention, *grid, 4)


# --- entropy -----------------------------------------------------------------------------------------------------


def test_looking_at_one_token_is_no_entropy_and_looking_everywhere_is_the_most():
    assert attention_entropy(one_hot(2, 0, 1, 1)).item() == 0
    assert attention_entropy(uniform(16)).item() == pytest.approx(4, abs=1e-6)
    assert attention_entropy(uniform(50)).item() == pytest.approx(math.log2(50), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_entropy_knows_that_nothing_is_nothing_in_every_precision(dtype):
    assert attention_entropy(one_hot(2, 0, 1, 1).to(dtype)).item() == 0
    assert attention_entropy(uniform(16).to(dtype)).item() == 4


def test_entropy_equals_the_loops(attention):
    expected = np.zeros((3, 4))
    for layer, image, head, query, key in np.ndindex(attention.shape):
        weight = attention[layer, image, head, query, key].double().item()
        expected[layer, head] -= weight * math.log2(weight) / (2 * 16)
    entropy = attention_entropy(attention)
    assert entropy.shape == (3, 4)
    assert_close(entropy, torch.tensor(expected).float(), rtol=0, atol=1e-5)


# --- relevance ---------------------------------------------------------------------------------------------------


def relevance_by_hand(model: VisionTransformer, image: torch.Tensor, wanted: int | None) -> np.ndarray:
    """One image and one class, the model written out once more in float64, Equations 5 and 6 by loops."""
    config = model.config
    state = {name: tensor.detach().double() for name, tensor in model.state_dict().items()}

    def linear(name, tokens):
        return tokens @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, tokens):
        return F.layer_norm(tokens, (config.dim,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    patches = F.unfold(image[None].double(), config.patch_size, stride=config.patch_size)[0].T
    tokens = torch.cat([state["class_token.token"][0], linear("patch_embedding.projection", patches)])
    tokens = tokens + state["position_embedding.positions"][0]
    seen, width = [], config.head_dim
    for block in range(config.depth):
        name = f"blocks.{block}"
        qkv = linear(f"{name}.attention.qkv", norm(f"{name}.norm_1", tokens))
        head_outputs = []
        for head in range(config.heads):
            query, key, value = (
                qkv[:, part * config.dim + head * width : part * config.dim + (head + 1) * width] for part in range(3)
            )
            weights = torch.softmax(query @ key.T / math.sqrt(width), dim=-1)
            weights = weights.requires_grad_() if weights.is_leaf else weights
            weights.retain_grad()
            seen.append(weights)
            head_outputs.append(weights @ value)
        tokens = tokens + linear(f"{name}.attention.projection", torch.cat(head_outputs, dim=-1))
        hidden = F.gelu(linear(f"{name}.mlp.expand", norm(f"{name}.norm_2", tokens)))
        tokens = tokens + linear(f"{name}.mlp.contract", hidden)
    tokens = norm("norm", tokens)
    features = tokens[0] if config.pooling == "class" else tokens[1:].mean(dim=0)
    logits = linear("head.logits", features)
    logits[logits.argmax() if wanted is None else wanted].backward()

    count = config.tokens
    arrived = np.eye(count)
    for block in range(config.depth):
        mixed = np.zeros((count, count))
        for weights in seen[block * config.heads : (block + 1) * config.heads]:
            for query, key in np.ndindex(count, count):
                product_here = weights[query, key].item() * weights.grad[query, key].item()
                mixed[query, key] += max(product_here, 0) / config.heads
        arrived = arrived + product(mixed, arrived)
    return arrived[0, 1:] if config.pooling == "class" else arrived[1:, 1:].mean(axis=0)


@pytest.mark.parametrize("pooling", ["class", "mean"])
@pytest.mark.parametrize("wanted", [None, (4, 1)])
def test_relevance_equals_the_model_and_the_equations_written_out(config, randomize, images, pooling, wanted):
    model = randomize(VisionTransformer(replace(config, pooling=pooling)))
    classes = None if wanted is None else torch.tensor(wanted)
    expected = torch.tensor(
        np.stack(
            [relevance_by_hand(model, image, None if wanted is None else wanted[at]) for at, image in enumerate(images)]
        )
    )
    assert expected.std() > 5e-4
    maps = relevance(model, images, classes)
    assert maps.shape == (2, 15)
    assert_close(maps, expected.float(), rtol=1e-3, atol=1e-5)
    assert_close(relevance(model.double(), images.double(), classes), expected, rtol=1e-9, atol=1e-12)


def test_one_block_is_enough_for_relevance(config, randomize, images):
    model = randomize(VisionTransformer(replace(config, depth=1)))
    expected = torch.tensor(np.stack([relevance_by_hand(model, image, 2) for image in images])).float()
    assert_close(relevance(model, images, torch.tensor([2, 2])), expected, rtol=1e-3, atol=1e-5)


def test_relevance_is_never_negative_and_depends_on_the_class(model, images):
    maps = torch.stack([relevance(model, images, torch.full((2,), label)) for label in range(5)])
    assert (maps >= 0).all()
    assert all(not torch.allclose(maps[one], maps[other], rtol=0.01) for one in range(5) for other in range(one))


def test_relevance_is_by_default_that_of_the_predicted_class(model, images):
    predicted = model(images).argmax(-1)
    assert torch.equal(relevance(model, images), relevance(model, images, predicted))
    assert torch.equal(relevance(model, images, predicted.int()), relevance(model, images, predicted))


def test_the_images_of_a_batch_do_not_disturb_each_other(model, images):
    alone = torch.cat([relevance(model, images[at : at + 1], torch.tensor([at])) for at in range(2)])
    assert_close(relevance(model, images, torch.tensor([0, 1])), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_relevance_works_whatever_of_autograd_is_switched_off(model, images, mode):
    expected = relevance(model, images)
    with mode():
        maps = relevance(model, images)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert torch.equal(maps, expected)
    assert not maps.requires_grad


def test_relevance_works_on_a_frozen_model(model, images):
    expected = relevance(model, images)
    model.requires_grad_(False)
    assert torch.equal(relevance(model, images), expected)


def test_relevance_leaves_the_model_and_the_images_as_they_were(model, images):
    before = copy.deepcopy(model.state_dict())
    pixels = images.clone()
    relevance(model, images)
    assert all(parameter.grad is None for parameter in model.parameters())
    model(images).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    relevance(model, images)
    assert all(map(torch.equal, gradients, (parameter.grad for parameter in model.parameters())))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(block.attention.fused for block in model.blocks)
    assert not model.training
    assert torch.equal(images, pixels)
    assert not images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("classes", [[0, 5], [-1, 0], [0], [0, 1, 2], [True, False]])
def test_relevance_refuses_classes_that_the_model_does_not_have(model, images, classes, unchecked):
    with pytest.raises(ValueError, match=r"^classes must be 2 integers from 0 to 4, one for each image; not "):
        relevance(model, images, torch.tensor(classes))


# --- the logit lens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_every_station_of_the_lens_is_the_model_cut_off_there(config, randomize, images, pooling):
    """Twelve blocks: block 10 comes after block 9 and not after block 1."""
    model = randomize(VisionTransformer(replace(config, depth=12, pooling=pooling)), 0.1)
    stations = logit_lens(model, images)
    assert stations.shape == (13, 2, 5)
    assert not stations.requires_grad
    assert torch.equal(stations[-1], model(images))
    for depth in range(13):
        short = copy.deepcopy(model)
        short.blocks = nn.Sequential(*list(model.blocks)[:depth])
        assert_close(stations[depth], short(images), rtol=0, atol=1e-5)


# --- positions and filters ---------------------------------------------------------------------------------------


def test_position_similarity_is_the_cosine_of_every_pair_of_patches():
    positions = nn.Parameter(torch.randn(1, 7, 10))
    similarity = position_similarity(positions)
    assert similarity.shape == (6, 6)
    assert not similarity.requires_grad
    assert_close(similarity.diag(), torch.ones(6), rtol=0, atol=1e-6)
    vectors = positions.detach().double().numpy()[0, 1:]
    for one, other in np.ndindex(6, 6):
        dot = sum(vectors[one] * vectors[other])
        cosine = dot / math.sqrt(sum(vectors[one] ** 2)) / math.sqrt(sum(vectors[other] ** 2))
        assert similarity[one, other].item() == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize("shape", [(64, 48), (20, 48)])
def test_principal_filters_are_those_of_numpy_up_to_sign(shape):
    weight = nn.Parameter(torch.randn(shape) + 3)
    count = min(shape) - 1
    filters = principal_filters(weight, count)
    assert filters.shape == (count, 48)
    assert not filters.requires_grad
    assert_close(filters @ filters.T, torch.eye(count), rtol=0, atol=1e-5)
    array = weight.detach().double().numpy()
    _, _, expected = np.linalg.svd(array - array.mean(axis=0))
    along = (filters.double().numpy() * expected[:count]).sum(axis=1)
    np.testing.assert_allclose(np.abs(along), 1, atol=1e-3)


def test_the_first_principal_filter_is_the_one_that_varies_most():
    basis = torch.linalg.qr(torch.randn(12, 12)).Q
    filters = torch.randn(40, 1) * 5 * basis[0] + torch.randn(40, 1) * basis[1] + 7
    first, second = principal_filters(filters, 2)
    assert abs(first @ basis[0]) > 0.9
    assert abs(second @ basis[1]) > 0.9
    assert principal_filters(torch.randn(50, 30)).shape == (28, 30)


@pytest.mark.parametrize("count", [1, 12])
def test_there_may_be_one_principal_filter_and_as_many_as_pixels(count):
    filters = principal_filters(torch.randn(40, 12), count)
    assert_close(filters @ filters.T, torch.eye(count), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, -1, 13])
def test_more_principal_filters_than_there_are_or_none_are_refused(count):
    with pytest.raises(ValueError, match=f"^count {count} is not between 1 and 12$"):
        principal_filters(torch.randn(40, 12), count)


# --- how much of a map lies on the object ------------------------------------------------------------------------


def mass_by_loops(maps: np.ndarray, masks: np.ndarray, side: int) -> list[float]:
    cols = masks.shape[2] // side
    result = []
    for values, mask in zip(maps, masks, strict=True):
        on = total = 0.0
        for row, col in np.ndindex(mask.shape):
            value = values[row // side * cols + col // side]
            total += value
            on += value * mask[row, col]
        result.append(on / total)
    return result


@pytest.mark.parametrize(("height", "width", "side"), [(12, 20, 4), (20, 12, 4), (6, 10, 2), (7, 3, 1), (48, 48, 12)])
def test_mass_on_object_equals_the_loops(height, width, side):
    maps = torch.rand(5, height // side * (width // side))
    masks = torch.rand(5, height, width) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])[:, None, None]
    expected = mass_by_loops(maps.double().numpy(), masks.numpy(), side)
    assert_close(mass_on_object(maps, masks), torch.tensor(expected).float(), rtol=0, atol=1e-5)
    assert_close(mass_on_object(100 * maps, masks), torch.tensor(expected).float(), rtol=0, atol=1e-5)
    assert_close(mass_on_object(maps / 1000, masks), torch.tensor(expected).float(), rtol=0, atol=1e-5)


@pytest.fixture
def masks():
    """The object is the patches of 4 x 4 pixels in the rows 1 and 2 and in the columns 3 and 4: 4 of 3 x 5."""
    masks = torch.zeros(2, 12, 20, dtype=torch.bool)
    masks[:, 4:, 12:] = True
    return masks


OBJECT = [8, 9, 13, 14]


def test_a_uniform_map_has_the_share_of_the_area_on_the_object(masks):
    assert_close(mass_on_object(torch.full((2, 15), 0.2), masks), torch.full((2,), 4 / 15))
    ragged = torch.rand(2, 12, 20) < 0.3
    assert_close(mass_on_object(torch.ones(2, 15), ragged), ragged.float().mean(dim=(1, 2)))


def test_a_map_on_the_object_has_all_its_mass_there_and_one_beside_it_none(masks):
    maps = torch.zeros(2, 15)
    maps[0, OBJECT] = torch.rand(4) + 0.1
    maps[1, :8] = torch.rand(8)
    assert mass_on_object(maps, masks).tolist() == pytest.approx([1, 0])
    assert mass_on_object(maps[:1], ~masks[:1]).tolist() == [0]


def test_one_patch_may_be_the_whole_image():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    assert mass_on_object(torch.rand(1, 1) + 0.1, masks).tolist() == [0.25]


@pytest.mark.parametrize("place", range(15))
def test_the_pointing_game_is_won_where_the_strongest_patch_lies_on_the_object(masks, place):
    maps = torch.rand(2, 15)
    maps[0, place] = 2
    maps[1] = -maps[1]  # the strongest may be negative: only the order counts
    maps[1, place] = 0.1
    assert pointing_game(maps, masks).tolist() == [place in OBJECT] * 2


@pytest.mark.parametrize(("pixels", "won"), [(0, False), (7, False), (8, True), (16, True)])
def test_half_of_a_patch_is_enough_to_win(pixels, won):
    patch = torch.zeros(16, dtype=torch.bool)
    patch[torch.randperm(16)[:pixels]] = True
    mask = torch.zeros(1, 12, 20, dtype=torch.bool)
    mask[0, 4:8, 8:12] = patch.reshape(4, 4)
    strongest = F.one_hot(torch.tensor([7]), 15).float()
    assert pointing_game(strongest, mask).tolist() == [won]


@pytest.mark.parametrize("measure", [mass_on_object, pointing_game])
@pytest.mark.parametrize("shape", [(2, 14), (2, 16), (2, 60_000), (2, 0), (3, 15), (1, 15), (15,), (2, 3, 5)], ids=str)
def test_maps_of_another_shape_than_the_masks_are_refused(measure, shape, masks, unchecked):
    with pytest.raises(ValueError, match=r"^maps \(.*\) \(batch, patches\) do not fit masks \(2, 12, 20\) \(batch"):
        measure(torch.rand(shape), masks)


@pytest.mark.parametrize("measure", [mass_on_object, pointing_game])
@pytest.mark.parametrize("shape", [(2, 1, 12, 20), (12, 20), (2, 12, 21), (2, 0, 0)], ids=str)
def test_masks_of_another_shape_than_the_maps_are_refused(measure, shape, unchecked):
    with pytest.raises(ValueError, match=r"^maps \(2, 15\) \(batch, patches\) do not fit masks"):
        measure(torch.rand(2, 15), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("measure", [mass_on_object, pointing_game])
def test_a_map_that_is_not_of_numbers_is_refused(measure, value, masks):
    maps = torch.rand(2, 15)
    maps[1, 3] = value
    with pytest.raises(ValueError, match=r"^a map has numbers that are NaN or infinite$"):
        measure(maps, masks)


@pytest.mark.parametrize(
    "broken", [torch.zeros(15), -torch.ones(15), torch.ones(15).index_fill(0, torch.tensor(4), -1e-3)]
)
def test_the_mass_of_a_map_that_is_negative_or_empty_is_refused(broken, masks):
    with pytest.raises(ValueError, match=r"^a map must be of numbers from 0 up, and not all 0$"):
        mass_on_object(torch.stack([torch.rand(15), broken]), masks)


# --- deletion and insertion --------------------------------------------------------------------------------------


class Witness(nn.Module):
    """A model that keeps what it is shown and says what it is told."""

    def __init__(self, config: ViTConfig, answer=None):
        super().__init__()
        self.config, self.seen = config, []
        self.answer = answer or (lambda images: torch.zeros(len(images), config.classes))

    def forward(self, images):
        self.seen.append(images.clone())
        return self.answer(images)


def median_by_sorting(image: torch.Tensor) -> torch.Tensor:
    """The colour (channels, 1, 1); of two in the middle the lower one."""
    colours = [sorted(channel.flatten().tolist()) for channel in image]
    return torch.tensor([colour[(len(colour) - 1) // 2] for colour in colours])[:, None, None]


def patch_of(image: torch.Tensor, patch: int, config: ViTConfig) -> torch.Tensor:
    top, left = patch // config.cols * config.patch_size, patch % config.cols * config.patch_size
    return image[:, top : top + config.patch_size, left : left + config.patch_size]


@pytest.mark.parametrize("steps", [1, 4, 8, 15, 40])
@pytest.mark.parametrize("name", CURVES)
def test_every_station_has_touched_as_many_patches_as_it_should_and_the_strongest_first(config, images, name, steps):
    maps = torch.randn(2, 15)
    witness = Witness(config)
    curve = CURVES[name](witness, images, maps, torch.tensor([0, 3]), steps)
    assert curve.shape == (2, steps + 1)
    assert_close(curve, torch.full((2, steps + 1), 1 / 5))
    assert len(witness.seen) == steps + 1
    for station, shown in enumerate(witness.seen):
        for image in range(2):
            order = sorted(range(15), key=lambda patch: -maps[image, patch].item())
            touched = set(order[: round(15 * station / steps)])
            for patch in range(15):
                original = patch_of(images[image], patch, config)
                blank = median_by_sorting(images[image]).expand_as(original)
                expected = original if (patch in touched) == (name == "insertion") else blank
                assert torch.equal(patch_of(shown[image], patch, config), expected)


def test_without_a_number_there_are_nine_stations(config, images):
    for curve in CURVES.values():
        assert curve(Witness(config), images, torch.rand(2, 15), torch.tensor([0, 3])).shape == (2, 9)


@pytest.mark.parametrize("name", CURVES)
def test_the_first_and_the_last_station_are_the_whole_image_and_the_bare_colour(model, images, name):
    classes = torch.tensor([1, 4])
    curve = CURVES[name](model, images, torch.rand(2, 15), classes, 6)
    bare = torch.stack([median_by_sorting(image).expand_as(image) for image in images])
    with torch.no_grad():
        ends = [model(shown).softmax(-1)[[0, 1], classes] for shown in (images, bare)]
    expected = torch.stack(ends if name == "deletion" else ends[::-1], dim=1)
    assert not torch.allclose(*ends, atol=1e-3)
    assert_close(curve[:, [0, -1]], expected, rtol=0, atol=1e-6)


def test_uncovering_the_strongest_is_covering_the_weakest_backwards(model, images):
    maps, classes = torch.randn(2, 15), torch.tensor([2, 0])
    forth = insertion_curve(model, images, maps, classes, 5)
    assert_close(forth, deletion_curve(model, images, -maps, classes, 5).flip(1), rtol=0, atol=1e-6)


def test_a_good_map_makes_the_probability_fall_early_and_rise_early(config):
    """The class is told from patch 8 alone, which is white on black."""
    images = torch.zeros(1, 3, 12, 20)
    patch_of(images[0], 8, config)[:] = 1

    def answer(shown):
        return torch.stack([20 * patch_of(shown[0], 8, config).mean(), *torch.zeros(4)])[None]

    good = F.one_hot(torch.tensor([8]), 15).float()
    blank = 1 / 5
    assert_close(
        deletion_curve(Witness(config, answer), images, good, torch.tensor([0]), 3)[0],
        torch.tensor([1, blank, blank, blank]),
    )
    assert_close(
        insertion_curve(Witness(config, answer), images, good, torch.tensor([0]), 3)[0],
        torch.tensor([blank, 1.0, 1, 1]),
    )
    assert_close(
        deletion_curve(Witness(config, answer), images, -good, torch.tensor([0]), 3)[0],
        torch.tensor([1.0, 1, 1, blank]),
    )
    assert_close(
        insertion_curve(Witness(config, answer), images, -good, torch.tensor([0]), 3)[0],
        torch.tensor([blank, blank, blank, 1]),
    )


def test_patches_that_are_equally_strong_are_taken_in_reading_order(config):
    """30 patches: up to 16 torch keeps the order of equals without being asked."""
    config, images = replace(config, image_size=(20, 24)), torch.rand(2, 3, 20, 24)
    witness = Witness(config)
    deletion_curve(witness, images, torch.ones(2, 30), torch.tensor([0, 0]), 5)
    for station, shown in enumerate(witness.seen):
        kept = [
            patch for patch in range(30) if torch.equal(*(patch_of(of[0], patch, config) for of in (shown, images)))
        ]
        assert kept == list(range(6 * station, 30))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.rand(2, 14)}, r"^maps \(2, 14\) are not one number for each of 15 patches$"),
        ({"maps": torch.rand(1, 15)}, r"^maps \(1, 15\) are not one number for each of 15 patches$"),
        ({"maps": torch.rand(2, 3, 5)}, "are not one number for each of 15 patches$"),
        ({"maps": torch.full((2, 15), torch.nan)}, "^a map has numbers that are NaN$"),
        ({"classes": torch.tensor([0, 5])}, "^classes must be 2 integers from 0 to 4"),
        ({"classes": torch.tensor([0, -1])}, "^classes must be 2 integers from 0 to 4"),
        ({"classes": torch.tensor([0])}, "^classes must be 2 integers from 0 to 4"),
        ({"steps": 0}, "^steps is 0; it must be at least 1$"),
        ({"steps": -3}, "^steps is -3; it must be at least 1$"),
    ],
)
def test_curves_refuse_what_they_cannot_draw(config, images, name, change, message):
    witness = Witness(config)
    arguments = {"maps": torch.rand(2, 15), "classes": torch.tensor([0, 1]), "steps": 4} | change
    with pytest.raises(ValueError, match=message):
        CURVES[name](witness, images, **arguments)
    assert witness.seen == []


# --- occlusion ---------------------------------------------------------------------------------------------------


@pytest.fixture
def summing(config):
    """A model whose logit of class c is the sum of the patches c, c + 5 and c + 10, times c + 1."""

    def answer(images):
        sums = torch.stack([patch_of(image, patch, config).sum() for image in images for patch in range(15)])
        return sums.reshape(-1, 3, 5).sum(dim=1) * torch.arange(1, 6) / 50

    return Witness(config, answer)


@pytest.mark.parametrize("wanted", [None, (4, 1)])
def test_occlusion_is_what_covering_a_patch_takes_from_the_probability(summing, images, wanted):
    """The logits are sums: what a cover changes of them is known without showing it to the model."""
    pixels, weights = images.double().numpy(), np.arange(1, 6) / 50
    expected = np.zeros((2, 15))
    for at, image in enumerate(pixels):
        sums = [image[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4].sum() for row in range(3) for col in range(5)]
        cover = 16 * sum(sorted(channel.ravel())[119] for channel in image)  # of 240 the lower one in the middle
        logits = np.array([sum(sums[label::5]) for label in range(5)]) * weights
        label = logits.argmax() if wanted is None else wanted[at]
        for patch in range(15):
            covered = logits.copy()
            covered[patch % 5] += (cover - sums[patch]) * weights[patch % 5]
            before, after = (np.exp(each)[label] / np.exp(each).sum() for each in (logits, covered))
            expected[at, patch] = before - after
    assert (expected > 1e-4).any()
    assert (expected < -1e-4).any()  # a class may gain by a cover
    maps = occlusion(summing, images, None if wanted is None else torch.tensor(wanted))
    assert maps.shape == (2, 15)
    assert_close(maps, torch.tensor(expected).float(), rtol=0, atol=1e-5)


def test_occlusion_of_one_image_shows_as_many_covered_patches_at_once_as_of_several_images(config, images, monkeypatch):
    monkeypatch.setattr("vit_walkthrough.look.explain.BATCH_SIZE", 8)
    witness = Witness(config)
    occlusion(witness, images[:1])
    assert [len(shown) for shown in witness.seen] == [1, 8, 7]


def test_occlusion_is_as_exact_as_the_model(config, images):
    exact = Witness(config, lambda images: images.double().mean((2, 3)).repeat(1, 2)[:, : config.classes])
    assert occlusion(exact, images).dtype == torch.float64


@pytest.mark.parametrize(("together", "calls"), [(64, [30]), (8, [8, 8, 8, 6]), (2, [2] * 15), (1, [2] * 15)])
def test_occlusion_covers_one_patch_at_a_time_with_the_median_colour(config, images, monkeypatch, together, calls):
    monkeypatch.setattr("vit_walkthrough.look.explain.BATCH_SIZE", together)
    witness, before = Witness(config), images.clone()
    assert torch.equal(occlusion(witness, images), torch.zeros(2, 15))
    whole, *covered = witness.seen
    assert torch.equal(whole, before)
    assert torch.equal(images, before)
    assert [len(shown) for shown in covered] == calls
    for patch, shown in enumerate(torch.cat(covered).split(2)):
        for image, original in zip(shown, images, strict=True):
            expected = original.clone()
            patch_of(expected, patch, config)[:] = median_by_sorting(original)
            assert torch.equal(image, expected)


def test_covering_what_is_the_ground_already_changes_nothing(model):
    images = torch.full((1, 3, 12, 20), 0.25)
    inked = (0, 7, 14)
    for patch in inked:
        patch_of(images[0], patch, model.config)[:] = torch.rand(3, 4, 4)
    for label in range(5):
        (falls,) = occlusion(model, images, torch.tensor([label])).tolist()
        assert all((fall != 0) == (patch in inked) for patch, fall in enumerate(falls))


def test_occlusion_is_by_default_that_of_the_predicted_class(model, images):
    predicted = model(images).argmax(-1)
    assert torch.equal(occlusion(model, images), occlusion(model, images, predicted))
    others = torch.stack([occlusion(model, images, (predicted + shift) % 5) for shift in range(5)])
    assert not any(torch.allclose(others[0], other, atol=1e-3) for other in others[1:])
    assert_close(others.sum(dim=0), torch.zeros(2, 15), rtol=0, atol=1e-5)  # what one class loses, the others gain


def test_occlusion_leaves_the_model_as_it_was(model, images):
    before = copy.deepcopy(model.state_dict())
    images.requires_grad_(True)
    for training in (True, False):
        model.train(training)
        assert not occlusion(model, images).requires_grad
        assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert images.grad is None
    assert torch.is_grad_enabled()
    assert all(block.attention.fused for block in model.blocks)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("classes", [[0, 5], [-1, 0], [0], [0, 1, 2], [True, False]])
def test_occlusion_refuses_classes_that_the_model_does_not_have(config, images, classes, unchecked):
    witness = Witness(config)
    with pytest.raises(ValueError, match=r"^classes must be 2 integers from 0 to 4, one for each image; not "):
        occlusion(witness, images, torch.tensor(classes))
    assert len(witness.seen) == 1  # not asked of any cover


# --- what all of them are given and give -------------------------------------------------------------------------

ASKED = {
    "relevance": relevance,
    "occlusion": occlusion,
    **{
        name: lambda model, images, classes, curve=curve: curve(model, images, torch.ones(len(images), 15), classes)
        for name, curve in CURVES.items()
    },
}


@pytest.fixture(params=ASKED)
def ask(request):
    return ASKED[request.param]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_classes_may_be_whole_numbers_of_any_kind(ask, model, images, dtype, unchecked):
    expected = ask(model, images, torch.tensor([0, 1]))
    assert torch.equal(ask(model, images, torch.tensor([0, 1], dtype=dtype)), expected)


def test_of_no_images_there_is_nothing_to_say(ask, model, images):
    assert len(ask(model, images[:0], torch.zeros(0, dtype=torch.long))) == 0


def test_what_comes_out_may_be_changed_in_place(ask, model, images):
    ask(model, images, torch.tensor([0, 1])).mul_(2)


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
def test_stations_may_be_named_by_their_numbers_of_patches(curve, model, images):
    maps, classes = torch.rand(2, 15), torch.tensor([1, 3])
    whole = curve(model, images, maps, classes, steps=15)
    assert_close(curve(model, images, maps, classes, steps=[0, 2, 2, 15]), whole[:, [0, 2, 2, 15]])
    for wrong in ([], [-1, 3], [0, 16]):
        with pytest.raises(ValueError, match=r"are not numbers of patches from 0 to 15"):
            curve(model, images, maps, classes, steps=wrong)
