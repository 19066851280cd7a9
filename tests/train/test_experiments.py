"""experiments.py: every experiment runs, and what its name says is what is changed; results are kept one by one."""

import copy
import functools
import json
import math
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.tokens import sincos_positions
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train import experiments
from vit_walkthrough.train.experiments import BASE, EXPERIMENTS, SEEDS, Experiment, main, results, run
from vit_walkthrough.train.loop import evaluate, fit, init_model

EVERY = [(group, name) for group, names in EXPERIMENTS.items() for name in names]
STORED = experiments.RESULTS
BASIC = ("base", "as it is")
BLIND = ("class token", "patches may not see it")
PARTS = ("weight", "bias")
ONE_MATRIX = ("attention", "one matrix for q, k and v")


def names_of(group: str) -> list[tuple[str, str]]:
    return [(group, name) for name in EXPERIMENTS[group]]


def train(group: str, name: str, seed: int = 0, steps: int = 1) -> SimpleNamespace:
    """`run` with 50 test images and batches of 8, and what it gave to `fit` and `evaluate`."""
    seen = SimpleNamespace(evaluated=[])

    def watched_fit(model, data, **recipe):
        seen.start, seen.data, seen.recipe = copy.deepcopy(model), data, recipe
        seen.model, seen.history = fit(model, data, **{"batch_size": 8, **recipe})
        return seen.model, seen.history

    def watched_evaluate(model, data, count):
        assert model is seen.model
        seen.evaluated.append((data, count))
        return evaluate(model, data, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(experiments, "TEST_IMAGES", 50)
        patch.setattr(experiments, "fit", watched_fit)
        patch.setattr(experiments, "evaluate", watched_evaluate)
        seen.result = run(group, name, seed, steps)
    return seen


trained = functools.cache(train)  # shared by the tests, none of which changes what it is given


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def differing(one: nn.Module, other: nn.Module) -> set[str]:
    """The names of the tensors that only one of them has, or that are not the same."""
    ours, theirs = one.state_dict(), other.state_dict()
    alike = {name for name in ours.keys() & theirs.keys() if ours[name].shape == theirs[name].shape}
    return (ours.keys() | theirs.keys()) - {name for name in alike if torch.equal(ours[name], theirs[name])}


@pytest.fixture(scope="module")
def digits():
    return ClutteredDigits("test").sample(6, draw=0)[0]


def recorded(model: nn.Module, images: torch.Tensor, *patterns: str):
    with torch.no_grad(), record(model, *patterns) as trace:
        model(images)
    return trace


# --- every experiment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_every_experiment_runs(group, name):
    once = trained(group, name)
    assert list(once.result) == ["accuracy", "training accuracy", "parameters", "seconds"]
    assert json.loads(json.dumps(once.result)) == once.result
    learned = [parameter.numel() for parameter in once.model.parameters() if parameter.requires_grad]
    assert once.result["parameters"] == sum(learned)
    assert once.result["seconds"] == round(once.history.seconds, 1)
    assert len(once.history.loss) == 1
    assert math.isfinite(once.history.loss[0])
    assert all(tensor.isfinite().all() for tensor in once.model.state_dict().values())
    assert not same(once.start, once.model)


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_every_experiment_is_measured_on_test_images_and_on_upright_training_images(group, name):
    once = trained(group, name)
    (test, count), (seen, as_many) = once.evaluated
    assert count == as_many == 50
    assert (test.split, len(test.scans), test.augment) == ("test", 500, False)
    assert (seen.split, len(seen.scans), seen.augment) == ("train", len(once.data.scans), False)
    assert [once.result[key] for key in ("accuracy", "training accuracy")] == [
        evaluate(once.model, data, 50) for data in (test, seen)
    ]


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_what_an_experiment_does_not_name_is_as_in_the_base(group, name):
    once, chosen = trained(group, name), EXPERIMENTS[group][name]
    assert once.recipe.items() >= {"steps": 1, "seed": 0, "progress": False}.items()
    assert once.recipe.keys() - {"steps", "seed", "progress"} == chosen.recipe.keys() - {"steps"}
    assert (once.data.split, once.data.size, once.data.seed) == ("train", 48, 0)
    assert len(once.data.scans) == (1297 if group != "data" else int(name.split()[1].replace(",", "")))
    assert once.data.augment == (name != "no augmentation")


def test_no_two_experiments_are_the_same():
    def facts(group, name):
        once = trained(group, name)
        numbers = [tensor.double().sum().item() for tensor in once.start.state_dict().values()]
        heads = [module.heads for module in once.start.modules() if hasattr(module, "heads")]
        pooling = getattr(getattr(once.start, "config", None), "pooling", None)
        recipe = sorted((key, str(value)) for key, value in (once.recipe | EXPERIMENTS[group][name].recipe).items())
        data = (len(once.data.scans), once.data.augment)
        learned = once.result["parameters"]
        return str((str(once.start), numbers, heads, pooling, recipe, data, group == BLIND[0] and name, learned))

    assert len({facts(*one) for one in EVERY}) == len(EVERY)


def test_the_base_is_a_fresh_vit_of_its_config():
    assert BASE == ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)
    once = trained(*BASIC)
    assert type(once.model) is VisionTransformer
    assert once.model.config == BASE
    assert same(once.start, init_model(BASE, ClutteredDigits("train"), 0))
    assert same(once.model, fit(BASE, ClutteredDigits("train"), steps=1, batch_size=8, progress=False).model)


# --- what each of them changes -----------------------------------------------------------------------------------


def test_without_positions_the_order_of_the_patches_does_not_matter(digits):
    model = trained("positions", "none").model
    assert not [name for name in model.state_dict() if "position" in name]
    upper_half_below = digits.roll(24, dims=2)
    assert_close(model(upper_half_below), model(digits), rtol=0, atol=1e-5)
    basic = trained(*BASIC).model
    assert not torch.allclose(basic(upper_half_below), basic(digits), atol=1e-3)


def test_sincos_positions_are_not_learned():
    model = trained("positions", "sincos").model
    assert torch.equal(model.position_embedding.positions, sincos_positions(4, 4, 64))
    assert not [name for name, _ in model.named_parameters() if "position" in name]


@pytest.mark.parametrize("std", [0.0, 0.02, 2.0])
def test_positions_start_as_small_as_the_name_says_and_are_learned(std):
    once = train("positions start", f"std {std}", steps=2)  # the first goes to the head alone, which is zero
    positions = once.start.position_embedding.positions
    assert positions.std().item() == pytest.approx(std, rel=0.1)
    assert differing(once.start, trained(*BASIC).start) == {"position_embedding.positions"}
    assert not torch.equal(once.model.position_embedding.positions, positions)


@pytest.mark.parametrize(("group", "name"), names_of("pooling"))
def test_pooling_and_learning_rate_are_those_of_the_name(group, name, digits):
    pooling, rate = name.split(", ")
    once = trained(group, name)
    assert once.history.learning_rate == [float(rate)]
    trace = recorded(once.model, digits, "norm", "output")
    features = trace["norm"][:, 0] if pooling == "class" else trace["norm"][:, 1:].mean(dim=1)
    assert_close(trace["output"], features @ once.model.head.logits.weight.T + once.model.head.logits.bias)
    assert same(once.start, trained(*BASIC).start)


@pytest.mark.parametrize("training", [True, False])
def test_patches_do_not_see_the_class_token_which_sees_them(digits, training):
    once = trained(*BLIND)
    model, other = copy.deepcopy(once.model).train(training), VisionTransformer(BASE).train(training)
    other.load_state_dict(model.state_dict())
    seen, usual = (recorded(each, digits, "*.attention.weights").attention for each in (model, other))
    assert seen.shape == (4, 6, 4, 17, 17)
    assert not seen[..., 1:, 0].any()
    assert (seen[..., 0, :] > 0).all()
    assert_close(seen.sum(dim=-1), torch.ones(4, 6, 4, 17))
    patches = usual[0, ..., 1:, 1:] / usual[0, ..., 1:, 1:].sum(dim=-1, keepdim=True)
    assert_close(seen[0, ..., 1:, 1:], patches)
    assert_close(seen[0, ..., 0, :], usual[0, ..., 0, :])


def test_whatever_the_class_token_is_the_patches_stay_as_they_are(digits):
    """Seen without a recorder too, where other models would take the fused kernel."""
    blind, basic = (copy.deepcopy(trained(*which).model) for which in (BLIND, BASIC))
    for model, changes in ((blind, False), (basic, True)):
        before = streams(model, digits)
        model.class_token.token.data.normal_()
        assert torch.allclose(streams(model, digits)[:, 1:], before[:, 1:], atol=1e-5) != changes


def streams(model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """What the last block gives."""
    with torch.no_grad():
        return model.blocks(model.position_embedding(model.class_token(model.patch_embedding(images))))


def test_the_class_token_has_no_position_and_gets_none():
    once = train("class token", "it has no position", steps=3)
    before, after = (model.position_embedding.positions for model in (once.start, once.model))
    assert not before[:, 0].any()
    assert not after[:, 0].any()
    assert torch.equal(before[:, 1:], trained(*BASIC).start.position_embedding.positions[:, 1:])
    assert (after[:, 1:] != before[:, 1:]).any(dim=-1).all()
    assert differing(once.start, trained(*BASIC).start) == {"position_embedding.positions"}


def test_the_class_token_gets_no_position_on_another_device_either():
    with torch.device("meta"):  # as strict as a GPU about where an index is
        model = VisionTransformer(BASE)
    experiments.no_position_for_class_token(model)
    model.position_embedding.positions.sum().backward()


@pytest.mark.parametrize(("group", "name"), names_of("projection"))
def test_a_grey_model_sees_no_colour(group, name, digits):
    once = trained(group, name)
    config = replace(BASE, patch_size=8, channels=1)
    assert once.model.model.config == config
    assert_close(once.model(digits.flip(1)), once.model(digits))
    assert_close(once.model(digits), once.model.model((digits[:, :1] + digits[:, 1:2] + digits[:, 2:]) / 3))
    embedding = 64 * 64 + 64
    frozen = embedding if name == "grey, raw pixels" else 0
    assert once.result["parameters"] == count_parameters(VisionTransformer(config)) - frozen


def test_raw_pixels_are_standardised_and_nothing_is_learned_about_them(digits):
    once = trained("projection", "grey, raw pixels")
    shown = ClutteredDigits("train").sample(256, draw=0)[0].mean(dim=1, keepdim=True)
    for model in (once.start.model, once.model.model):
        tokens = model.patch_embedding(shown)
        flat = F.unfold(shown, 8, stride=8).transpose(1, 2)  # the patches as they are
        assert_close(tokens, (flat - shown.mean()) / shown.std(), rtol=0, atol=1e-4)
        assert tokens.mean().item() == pytest.approx(0, abs=1e-4)
        assert tokens.std().item() == pytest.approx(1, abs=1e-4)
    learned = trained("projection", "grey, learned")
    assert not torch.equal(*(each.model.patch_embedding.projection.weight for each in (learned.start, learned.model)))


@pytest.mark.parametrize("side", [24, 16, 8])
def test_patches_are_as_large_as_the_name_says(side, digits):
    model = trained("patch size", f"{side} px").model
    assert model.config == replace(BASE, patch_size=side)
    assert recorded(model, digits, "patch_embedding")["patch_embedding"].shape == (6, (48 // side) ** 2, 64)


def test_overlapping_patches_are_seven_by_seven_windows(digits):
    once = trained("overlap", "12 px, 6 apart")
    usual = init_model(replace(BASE, image_size=84), ClutteredDigits("train"), 0).patch_embedding.projection
    windows = F.unfold(digits, 12, stride=6).transpose(1, 2)
    assert windows.shape == (6, 49, 432)
    with torch.no_grad():
        tokens = once.start.patch_embedding(digits)
        assert_close(tokens, windows @ usual.weight.T + usual.bias, rtol=1e-5, atol=1e-5)
    assert once.model.position_embedding.positions.shape == (1, 50, 64)
    assert once.result["parameters"] == trained(*BASIC).result["parameters"] + (49 - 16) * 64
    assert not torch.equal(once.model.patch_embedding.projection.weight, once.start.patch_embedding.projection.weight)


@pytest.mark.parametrize("heads", [1, 8])
def test_there_are_as_many_heads_as_the_name_says(heads, digits):
    once = trained("heads", f"{heads}")
    assert recorded(once.model, digits, "*.weights").attention.shape == (4, 6, heads, 17, 17)
    assert same(once.start, trained(*BASIC).start)
    assert once.model.config == replace(BASE, heads=heads)


def test_one_matrix_makes_queries_keys_and_values(digits):
    once = trained(*ONE_MATRIX)
    trace = recorded(once.model, digits, "*.norm_1", "*.queries", "*.keys", "*.values")
    for block in range(4):
        queries, keys, values = (trace[f"blocks.{block}.attention.{part}"] for part in ("queries", "keys", "values"))
        assert queries.std() > 0.1
        assert torch.equal(queries, keys)
        assert torch.equal(queries, values)
        matrix = once.model.blocks[block].attention.qkv.projection
        expected = trace[f"blocks.{block}.norm_1"] @ matrix.weight.T + matrix.bias
        assert_close(queries.transpose(1, 2).flatten(2), expected, rtol=0, atol=1e-5)
    saved = 4 * 2 * (64 * 64 + 64)
    assert once.result["parameters"] == trained(*BASIC).result["parameters"] - saved


def test_one_matrix_starts_with_xaviers_numbers_another_in_each_block():
    matrices = [block.attention.qkv.projection for block in trained(*ONE_MATRIX).start.blocks]
    assert len({matrix.weight.sum().item() for matrix in matrices}) == 4
    for matrix in matrices:
        limit = math.sqrt(6 / 128)
        assert 0.95 * limit < matrix.weight.abs().max() <= limit
        assert not matrix.bias.any()


def test_with_no_matrix_after_the_heads_their_outputs_are_what_is_added(digits):
    once = trained("attention", "no matrix after the heads")
    trace = recorded(once.model, digits, "*.head_outputs", "*.attention")
    for block in range(4):
        joined = torch.cat(list(trace[f"blocks.{block}.attention.head_outputs"].unbind(dim=1)), dim=-1)
        assert torch.equal(trace[f"blocks.{block}.attention"], joined)
    assert once.result["parameters"] == trained(*BASIC).result["parameters"] - 4 * (64 * 64 + 64)


NORMS = [*(f"blocks.{block}.norm_{number}" for block in range(4) for number in (1, 2)), "norm"]


def test_batchnorm_stands_for_every_layernorm(digits):
    once = trained("norms", "BatchNorm")
    assert not [module for module in once.model.modules() if isinstance(module, nn.LayerNorm)]
    model = copy.deepcopy(once.start).train()
    trace = recorded(model, digits, *NORMS)
    assert trace.names == NORMS
    for tokens in trace.values():
        assert tokens.shape == (6, 17, 64)
        assert_close(tokens.mean(dim=(0, 1)), torch.zeros(64), rtol=0, atol=1e-4)
        assert_close(tokens.var(dim=(0, 1), correction=0), torch.ones(64), rtol=0, atol=0.05)
    stream, ordinary = torch.randn(6, 17, 64) * 3 + 1, nn.BatchNorm1d(64)
    assert_close(model.norm(stream).flatten(0, 1), ordinary(stream.flatten(0, 1)))
    assert_close(
        model.norm.eval()(stream)[0],
        (stream[0] - model.norm.running_mean) / model.norm.running_var.sqrt(),
        rtol=0,
        atol=1e-4,
    )


def test_a_model_with_batchnorm_answers_for_each_image_alone_once_it_is_trained(digits):
    model = trained("norms", "BatchNorm").model
    assert_close(torch.cat([model(image[None]) for image in digits]), model(digits), rtol=0, atol=1e-5)


def test_without_the_last_norm_the_head_reads_the_stream(digits):
    once = trained("norms", "none after the last block")
    logits = once.model.head.logits
    expected = streams(once.model, digits)[:, 0] @ logits.weight.T + logits.bias
    assert_close(once.model(digits), expected, rtol=0, atol=1e-5)
    assert once.result["parameters"] == trained(*BASIC).result["parameters"] - 2 * 64
    assert differing(once.start, trained(*BASIC).start) == {"norm.weight", "norm.bias"}


def test_the_hidden_layer_of_the_head_has_a_tanh():
    once = trained("head", "hidden tanh layer")
    head, features = once.model.head, torch.randn(5, 64)
    hidden = torch.tanh(features @ head.hidden[0].weight.T + head.hidden[0].bias)
    assert hidden.shape == (5, 64)
    assert_close(head(features), hidden @ head.logits.weight.T + head.logits.bias)
    assert once.result["parameters"] == trained(*BASIC).result["parameters"] + 64 * 64 + 64
    assert once.history.loss == [pytest.approx(math.log(10))]


@pytest.mark.parametrize(("name", "share"), [("random start", 1), ("random, a thousandth", 1e-3)])
def test_a_random_head_has_an_opinion_from_the_first_step(name, share):
    once = trained("head", name)
    limit = share * math.sqrt(6 / 74)
    assert 0.95 * limit < once.start.head.logits.weight.abs().max() <= limit
    assert differing(once.start, trained(*BASIC).start) == {"head.logits.weight"}
    assert abs(once.history.loss[0] - math.log(10)) > 0.01 * share
    assert trained(*BASIC).history.loss == [pytest.approx(math.log(10))]


@pytest.mark.parametrize(("group", "name"), names_of("data"))
def test_each_kind_of_model_learns_from_as_many_scans_as_the_name_says(group, name):
    once = trained(group, name)
    kinds = {"ViT": VisionTransformer, "CNN": nn.Sequential, "linear": nn.Sequential}
    assert type(once.model) is kinds[name.split(",")[0]]
    assert bool([module for module in once.model.modules() if isinstance(module, nn.Conv2d)]) == ("CNN" in name)
    if "linear" in name:
        assert once.result["parameters"] == 48 * 48 * 3 * 10 + 10
    count = int(name.split()[1].replace(",", ""))
    assert torch.equal(once.data.scans, ClutteredDigits("train").scans[:count])


def test_fewer_scans_do_not_change_where_a_vit_starts():
    """But for the patch embedding, which is fitted to their pixels."""
    starts = [trained("data", f"ViT, {count} scans").start for count in (100, 300)]
    assert differing(*starts) == {f"patch_embedding.projection.{part}" for part in PARTS}


def test_the_cnn_halves_the_picture_four_times_and_is_as_large_as_the_base(digits):
    model = experiments.small_cnn().eval()
    sides, shown = [], digits
    for layer in model:
        shown = layer(shown)
        if isinstance(layer, nn.Conv2d):
            assert layer.kernel_size == (3, 3)
            sides.append(shown.shape[2:])
    assert sides == [(24, 24), (12, 12), (6, 6), (3, 3)]
    assert shown.shape == (6, 10)
    assert [type(layer) for layer in model[:12]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 4
    kernels = 9 * (3 * 32 + 32 * 64 + 64 * 96 + 96 * 96)
    assert count_parameters(model) == kernels + 2 * (32 + 64 + 96 + 96) + 97 * 10
    assert 0.97 < count_parameters(model) / count_parameters(VisionTransformer(BASE)) < 1.03


def made_by(once: SimpleNamespace) -> torch.optim.Optimizer:
    return once.recipe["optimizer"]([nn.Parameter(torch.zeros(1))], lr=0.5, weight_decay=0.25)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("learning rate 3e-4", {"learning_rate": 3e-4}),
        ("learning rate 1e-2", {"learning_rate": 1e-2}),
        ("no warm-up", {"warmup": 0.0}),
        ("weight decay 0", {"weight_decay": 0.0}),
        ("weight decay 1", {"weight_decay": 1.0}),
        ("no augmentation", {}),
        ("all weights 0.02", {}),
    ],
)
def test_of_the_training_one_thing_is_changed(name, recipe):
    once = trained("training", name)
    assert {key: once.recipe[key] for key in once.recipe.keys() - {"steps", "seed", "progress"}} == recipe
    if name == "no augmentation":
        assert differing(once.start, trained(*BASIC).start) == {f"patch_embedding.projection.{part}" for part in PARTS}
    elif name != "all weights 0.02":
        assert same(once.start, trained(*BASIC).start)
    assert once.model.config == BASE


def test_adamws_own_betas_are_those_of_torch():
    optimizer = made_by(trained("training", "AdamW's own betas"))
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.25)


@pytest.mark.parametrize("rate", [0.03, 0.1])
def test_stochastic_gradient_descent_has_momentum_and_its_own_weight_decay(rate):
    once = trained("training", f"SGD {rate}")
    optimizer = made_by(once)
    assert type(optimizer) is torch.optim.SGD
    chosen = {"lr": 0.5, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    assert optimizer.defaults.items() >= chosen.items()
    assert once.history.learning_rate == [rate]
    assert same(once.start, trained(*BASIC).start)


def test_the_small_start_is_made_of_small_normal_numbers():
    start = trained("training", "all weights 0.02").start
    matrices = [module.weight for module in start.modules() if isinstance(module, nn.Linear)]
    *matrices, head = matrices
    assert len(matrices) == 1 + 4 * 4
    for weight in (*matrices, start.position_embedding.positions):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not head.any()


# --- run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "which",
    [BASIC, ONE_MATRIX, ("positions start", "std 2.0"), ("data", "CNN, 100 scans")],
    ids=" ".join,
)
def test_the_same_seed_gives_the_same_result_whatever_the_randomness_of_others(which):
    torch.manual_seed(1)
    first = train(*which, seed=5, steps=2)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = train(*which, seed=5, steps=2), train(*which, seed=6, steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(again.model, first.model)
    assert {**again.result, "seconds": 0} == {**first.result, "seconds": 0}
    assert not set(other.history.loss[1:]) & set(first.history.loss[1:])
    assert not same(other.start, first.start)
    assert [each.data.seed for each in (first, other)] == [each.recipe["seed"] for each in (first, other)] == [5, 6]
    assert [each.evaluated[1][0].seed for each in (first, other)] == [5, 6]
    assert {each.evaluated[0][0].seed for each in (first, other)} == {0}  # the same test for all


LONG = [("4,000 steps", name) for name in EXPERIMENTS["4,000 steps"]]


@pytest.mark.parametrize(("which", "steps"), [(BASIC, 800), *((which, 4000) for which in LONG)])
def test_unless_told_there_are_800_steps_or_those_of_the_experiment_on_seed_0(monkeypatch, which, steps):
    def stop(model, data, **recipe):
        raise LookupError(recipe["steps"], recipe["seed"])

    monkeypatch.setattr(experiments, "fit", stop)
    with pytest.raises(LookupError, match=rf"^\({steps}, 0\)$"):
        run(*which)
    with pytest.raises(LookupError, match=r"^\(7, 0\)$"):
        run(*which, steps=7)


@pytest.mark.parametrize(
    ("group", "name"), [("base", "none"), ("none", "as it is"), ("positions", "as it is"), ("", "")]
)
def test_an_unknown_experiment_is_refused_and_those_there_are_are_listed(group, name):
    with pytest.raises(ValueError, match=rf"^experiment {group!r}, {name!r} is unknown; there are base: ") as caught:
        run(group, name)
    for known, names in EXPERIMENTS.items():
        assert f"{known}: {', '.join(names)}" in str(caught.value)


# --- results and the command line --------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A place for results; and few experiments, not run but counted, in this process."""
    kept = SimpleNamespace(path=tmp_path / "experiments.json", asked=[], processes=[])

    class AtOnce:
        def __init__(self, processes):
            kept.processes.append(processes)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def submit(self, function, *arguments):
            future = Future()
            try:
                future.set_result(function(*arguments))
            except ArithmeticError as error:
                future.set_exception(error)
            return future

    def alone(group, name, seed):
        kept.asked.append((group, name, seed))
        return {"accuracy": 0.5 + seed / 8}

    few = {"one": {"b": Experiment(), "a": Experiment()}, "two": {"c": Experiment()}}
    monkeypatch.setattr(experiments, "RESULTS", kept.path)
    monkeypatch.setattr(experiments, "EXPERIMENTS", few)
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", AtOnce)
    monkeypatch.setattr(experiments, "_run_alone", alone)
    monkeypatch.setattr(experiments, "as_completed", lambda jobs: reversed(list(jobs)))
    return kept


ALL = {str(seed): {"accuracy": 0.5 + seed / 8} for seed in (0, 1, 2)}
OLD = {seed: {"accuracy": 0.25} for seed in "012"}


def ordered(results: dict) -> str:
    return json.dumps(results)  # which, unlike ==, tells one order from another


def test_three_seeds_are_the_rule():
    assert SEEDS == (0, 1, 2)


def test_the_command_runs_everything_where_nothing_is_known(kept, capsys):
    main([])
    assert kept.asked == [(*which, seed) for seed in SEEDS for which in (("one", "b"), ("one", "a"), ("two", "c"))]
    assert ordered(results()) == ordered({"one": {"b": ALL, "a": ALL}, "two": {"c": ALL}})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert "one: b, seed 1: 62.5%" in lines
    assert [path.name for path in kept.path.parent.iterdir()] == ["experiments.json"]


def test_the_command_runs_only_what_is_missing(kept):
    known = {"one": {"a": OLD, "b": {"1": OLD["1"]}}}
    kept.path.write_text(json.dumps(known))
    main([])
    assert kept.asked == [("one", "b", 0), ("two", "c", 0), ("two", "c", 1), ("one", "b", 2), ("two", "c", 2)]
    assert ordered(results()) == ordered({"one": {"b": {**ALL, "1": OLD["1"]}, "a": OLD}, "two": {"c": ALL}})
    kept.asked.clear()
    main([])
    assert kept.asked == []


def test_a_named_group_is_run_anew_and_the_others_stay(kept):
    kept.path.write_text(json.dumps({"one": {"b": OLD, "a": OLD}, "two": {"c": OLD}}))
    main(["two"])
    assert kept.asked == [("two", "c", seed) for seed in SEEDS]
    assert ordered(results()) == ordered({"one": {"b": OLD, "a": OLD}, "two": {"c": ALL}})


def test_of_a_named_group_alone_nothing_else_is_run(kept):
    main(["one"])
    assert ordered(results()) == ordered({"one": {"b": ALL, "a": ALL}})


def test_what_is_there_no_longer_is_dropped(kept):
    kept.path.write_text(json.dumps({"gone": {"x": OLD}, "two": {"c": OLD}, "one": {"y": OLD, "a": OLD}}))
    main(["two"])
    assert ordered(results()) == ordered({"one": {"a": OLD}, "two": {"c": ALL}})


def test_an_unknown_group_is_refused_before_anything_runs(kept, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["two", "three", "four"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith("no group four, three; there are one, two")
    assert kept.asked == kept.processes == []
    assert not kept.path.exists()


def test_as_many_processes_as_asked_for(kept, monkeypatch):
    monkeypatch.setattr(experiments.os, "cpu_count", lambda: 7)
    main(["--processes", "3"])
    main([])
    assert kept.processes == [3, 7]


def test_what_was_measured_before_an_error_is_kept(kept, monkeypatch):
    whole = experiments._run_alone

    def failing(group, name, seed):
        if (group, name) == ("one", "a"):
            raise ArithmeticError("the loss is NaN")
        return whole(group, name, seed)

    monkeypatch.setattr(experiments, "_run_alone", failing)
    with pytest.raises(ArithmeticError, match="the loss is NaN"):
        main([])
    assert ordered(results()) == ordered({"two": {"c": {"2": ALL["2"]}}})  # the last come first here


@pytest.mark.parametrize("broken", ["replace", "numbers"])
def test_results_are_written_whole_or_not_at_all(kept, monkeypatch, broken):
    before = json.dumps({"two": {"c": OLD}})
    kept.path.write_text(before)
    result = ALL["0"]
    if broken == "replace":

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(experiments.os, "replace", fail)
    else:
        result = {"accuracy": torch.tensor(1.0)}  # which JSON does not know
    with pytest.raises((OSError, TypeError)):
        experiments._keep({"one": {"a": {"0": result}}})
    assert kept.path.read_text() == before


def test_without_results_there_is_nothing_to_read(kept):
    with pytest.raises(FileNotFoundError, match=r"experiments\.json"):
        results()


def test_an_experiment_beside_others_takes_one_thread(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", lambda count: asked.append(count))
    monkeypatch.setattr(experiments, "run", lambda *which: asked.append(which) or {"accuracy": 0.5})
    assert experiments._run_alone("heads", "8", 1) == {"accuracy": 0.5}
    assert asked == [1, ("heads", "8", 1)]


# --- the results that come along ---------------------------------------------------------------------------------


@pytest.mark.skipif(not STORED.exists(), reason="vit_walkthrough/experiments.json does not exist: not yet measured")
def test_every_experiment_has_a_stored_result_for_every_seed():
    stored = results()
    assert [(group, name) for group, names in stored.items() for name in names] == EVERY
    for group, name in EVERY:
        assert list(stored[group][name]) == ["0", "1", "2"], (group, name)
        for result in stored[group][name].values():
            assert list(result) == ["accuracy", "training accuracy", "parameters", "seconds"]
            assert 0 <= result["accuracy"] <= 1
            assert 0 <= result["training accuracy"] <= 1
            assert result["parameters"] == trained(group, name).result["parameters"]
            assert result["seconds"] > 0
