"""notebooks/experiments: what each kind of change changes, what a run measures, and how results are kept."""

import copy
import functools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from notebooks import experiments
from notebooks.experiments import BASE, results, variants
from notebooks.experiments import __main__ as command
from notebooks.experiments.__main__ import main, run
from notebooks.experiments.arms import EXPERIMENTS, STEPS, Experiment
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.look.trace import record
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.train.loop import RECIPE, History, evaluate, init_model


@functools.cache
def started(group: str, name: str) -> SimpleNamespace:
    """What `run` gives to `fit`, which is not called. No test changes it."""
    seen = SimpleNamespace()

    def watched_fit(model, data, *, watch, **recipe):
        seen.model, seen.data, seen.recipe = model, data, recipe
        return model.eval(), History()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "fit", watched_fit)
        patch.setattr(command, "evaluate", lambda *_: 0.5)
        seen.result = run(group, name)
    return seen


@pytest.fixture(scope="module")
def digits():
    return ClutteredDigits("test").sample(6, draw=0)[0]


def recorded(model: nn.Module, images: torch.Tensor):
    with torch.no_grad(), record(model) as trace:
        model(images)
    return trace


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in EXPERIMENTS.items() for name in names])
def test_every_experiment_has_a_model_that_reads_digits(group, name, digits):
    one, chosen = started(group, name), EXPERIMENTS[group][name]
    with torch.no_grad():
        logits = one.model(digits)
    assert (logits.shape, logits.isfinite().all()) == ((6, 10), True)
    assert one.recipe == dict(steps=STEPS, batch_size=128, seed=0, progress=False) | chosen.recipe
    data = getattr(one.data, "data", one.data)
    facts = data.split, data.seed, len(data.scans), data.augment
    assert facts == ("train", 0, chosen.data.get("scans", 1097), chosen.data.get("augment", True))


@pytest.mark.parametrize(
    ("which", "changes", "place", "std"),
    [
        (("base", "as it is"), {}, None, None),
        (("attention", "8 heads"), dict(heads=8), None, None),
        (("positions", "start at 0.02"), {}, "position_embedding.positions", 0.02),
        (("head", "random start"), {}, "head.logits.weight", math.sqrt(2 / 74)),
    ],
)
def test_one_field_of_the_config_or_one_parameter_is_another(which, changes, place, std):
    assert BASE == ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)
    model, usual = started(*which).model, init_model(BASE, ClutteredDigits("train"), 0).state_dict()
    assert model.config == replace(BASE, **changes)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, usual[name])}
    assert changed == ({place} if place else set())
    if place:
        assert model.get_parameter(place).std().item() == pytest.approx(std, rel=0.1)
    small = started("training", "all weights 0.02").model.blocks[0].mlp.expand.weight
    assert small.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_new_module_stands_at_every_place_of_the_pattern(digits):
    model, ordinary = copy.deepcopy(started("norms", "BatchNorm").model), nn.BatchNorm1d(64)
    assert not [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    stream = torch.randn(6, 17, 64) * 3 + 1
    assert_close(model.norm.train()(stream), ordinary(stream.flatten(0, 1)).unflatten(0, (6, 17)))

    model = started("attention", "one matrix for q, k and v").model
    trace = recorded(model, digits)
    matrices = [block.attention.qkv.projection.weight for block in model.blocks]
    for number, matrix in enumerate(matrices):
        for part in ("queries", "keys", "values"):
            given = trace[f"blocks.{number}.attention.{part}"].transpose(1, 2).flatten(2)
            assert_close(given, trace[f"blocks.{number}.norm_1"] @ matrix.T, rtol=0, atol=1e-5)
        assert 0.95 * math.sqrt(6 / 128) < matrix.abs().max() <= math.sqrt(6 / 128)
    assert len({matrix.sum().item() for matrix in matrices}) == 4


def test_drop_path_drops_whole_branches_of_some_images_and_makes_up_for_it():
    path, branch = variants.DropPath(0.25), torch.ones(4000, 3, 2)
    kept = path(branch)
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(path.eval()(branch), branch)
    modules = started("100 scans", "drop path").model.modules()
    assert sum(isinstance(module, variants.DropPath) for module in modules) == 2 * BASE.depth


def test_mixed_images_have_mixed_labels():
    data = started("100 scans", "mixup").data
    images, labels = data.sample(50, draw=4)
    plain, classes, _ = data.data.sample(50, draw=4)
    assert_close(labels.sum(dim=1), torch.ones(50))
    share = (images - plain).flatten(1).norm(dim=1) / (plain.flip(0) - plain).flatten(1).norm(dim=1)
    expected = torch.lerp(F.one_hot(classes, 10).float(), F.one_hot(classes.flip(0), 10).float(), share[:, None])
    assert_close(labels, expected, rtol=0, atol=1e-4)
    assert share.min() < 0.1 < 0.9 < share.max()


def test_work_counts_every_multiplication_of_attention_too():
    tokens, dim = BASE.tokens, BASE.dim
    block = tokens * (4 * dim**2 + 2 * dim * BASE.hidden) + 2 * tokens**2 * dim
    expected = (tokens - 1) * BASE.patch_dim * dim + BASE.depth * block + dim * BASE.classes
    assert started("base", "as it is").result["work"] == expected * STEPS * 128


@pytest.mark.parametrize("training", [True, False])
def test_patches_do_not_see_the_class_token_which_sees_them(digits, training):
    blind = copy.deepcopy(started("class token", "patches may not see it").model).train(training)
    both = blind, started("base", "as it is").model
    seen, usual = (recorded(each, digits).attention for each in both)
    assert not seen[..., 1:, 0].any()
    patches = usual[0, ..., 1:, 1:] / usual[0, ..., 1:, 1:].sum(dim=-1, keepdim=True)
    assert_close(seen[0, ..., 1:, 1:], patches)
    assert_close(seen[0, ..., 0, :], usual[0, ..., 0, :])

    def patches_after(model):  # without a recorder, where other models take the fused kernel
        tokens = model.position_embedding(model.class_token(model.patch_embedding(digits)))
        return model.blocks(tokens)[:, 1:]

    before = patches_after(blind)
    blind.class_token.token.data.normal_()
    assert_close(patches_after(blind), before)


@pytest.mark.usefixtures("on_the_processor")
def test_the_same_seed_gives_the_same_result_on_test_and_on_upright_training_images(monkeypatch):
    asked, which = [], ("data", "ViT, 100 scans")

    def watched(model, data, count):
        asked.append((data.split, data.seed, len(data.scans), data.augment))
        return evaluate(model, data, 100)

    monkeypatch.setattr(command, "STEPS", 10)
    monkeypatch.setattr(command, "evaluate", watched)
    first, before = run(*which, seed=5), torch.random.manual_seed(2).get_state()
    again, other = (run(*which, seed=seed) for seed in (5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert all(other[key] != first[key] for key in ("accuracy", "training accuracy", "curve"))
    on_validation = ("validation", 0, 200, False)
    assert asked[:12] == [*9 * [on_validation], ("test", 0, 500, False), ("train", 5, 100, False), on_validation]
    assert len(first["curve"]) == 10


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A place for results; and few experiments, which are not run but counted."""
    kept = SimpleNamespace(path=tmp_path / "results.json", asked=[], broken=None)

    def counted(group, name, seed):
        kept.asked.append((group, name, seed))
        if (group, name) == kept.broken:
            raise ArithmeticError("the loss is NaN")
        return {"accuracy": 0.5 + seed / 8}

    few = {"one": {"b": Experiment(), "a": Experiment()}, "two": {"c": Experiment()}}
    for module in (experiments, command):
        monkeypatch.setattr(module, "RESULTS", kept.path)
    monkeypatch.setattr(command, "EXPERIMENTS", few)
    monkeypatch.setattr(command, "ProcessPoolExecutor", functools.partial(ThreadPoolExecutor, 1))
    monkeypatch.setattr(command, "as_completed", list)
    monkeypatch.setattr(command, "run", counted)
    return kept


def test_an_unknown_group_is_refused_before_anything_runs_and_an_error_keeps_what_was_measured(kept, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["two", "three", "four"])
    assert "four, three; choose from one, two" in capsys.readouterr().err
    assert kept.asked == []
    with pytest.raises(ValueError, match=r"'base', '1' .* one: b, a; two: c"):
        run("base", "1")
    kept.broken = ("one", "a")
    with pytest.raises(ArithmeticError):
        main([])
    assert results() == {"one": {"b": {"0": {"accuracy": 0.5}}, "a": {}}, "two": {"c": {}}}
    main(["two"])
    assert experiments.measured(("two", "c")) == [0.5, 0.625, 0.75]  # in the order of the seeds
    assert json.loads(kept.path.read_text()) | {"results": 0} == {"recipe": 2, "torch": torch.__version__, "results": 0}


def test_the_stored_results_are_of_this_recipe_and_of_every_experiment_and_seed():
    assert json.loads(experiments.RESULTS.read_text())["recipe"] == RECIPE
    every = [(group, name) for group, names in EXPERIMENTS.items() for name in names]
    assert [(group, name) for group, names in results().items() for name in names] == every
    assert all(len(experiments.measured(one)) == 3 for one in every)


def test_an_effect_needs_runs_apart_and_means_further_apart_than_the_runs():
    said = {(0.5, 0.7, 0.9): "no effect", (0.3, 0.4, 0.5): "no effect"}  # the second touch
    said |= {(0.7, 0.71, 0.72): "higher, a hint", (0.8, 0.9, 1.0): "higher"}
    said |= {(0.4, 0.45, 0.49): "lower, a hint", (0.1, 0.1, 0.2): "lower"}
    assert {new: experiments.compared(list(new), [0.5, 0.6, 0.69]) for new in said} == said
