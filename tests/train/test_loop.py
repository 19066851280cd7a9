"""training.py: the loop against one written out here, what it keeps, where it stops, and the command line."""

import copy
import functools
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer, count_parameters
from vit_walkthrough.train import loop
from vit_walkthrough.train.finetune import Pictures
from vit_walkthrough.train.loop import History, adamw, evaluate, fit, init_model, main, schedule
from vit_walkthrough.weights.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    """What is compared bit for bit is computed where the order of a sum is fixed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


class Bars:
    """Noise, and a bright column that says the class. It counts how often it was asked."""

    def __init__(self, classes: int = 3, shape: tuple[int, int, int] = (1, 4, 6), always: int | None = None):
        self.classes, self.shape, self.always, self.asked = classes, shape, always, []

    def sample(self, count: int, draw: int):
        self.asked.append((count, draw))
        generator = torch.Generator().manual_seed(draw if self.always is None else self.always)
        labels = torch.randint(self.classes, (count,), generator=generator)
        images = torch.rand(count, *self.shape, generator=generator)
        images[torch.arange(count), :, :, labels] += 1
        return images, labels, torch.ones(count, *self.shape[1:], dtype=torch.bool)


@pytest.fixture
def config():
    return ViTConfig((4, 6), 2, channels=1, dim=8, depth=2, heads=2, hidden=16, classes=3)


@pytest.fixture
def train(config):
    """`fit` on Bars for ten steps of 6 images."""
    return functools.partial(fit, config, Bars(), steps=10, batch_size=6, progress=False)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_weights_close(one: nn.Module, other: nn.Module) -> None:
    for (name, ours), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        # The bias of the keys changes nothing; its gradient is a rounding error, which Adam makes large.
        if not name.endswith("qkv.bias"):
            assert_close(ours, theirs, rtol=0, atol=1e-3)


def measured(history: History) -> tuple[list[float], ...]:
    return history.loss, history.accuracy, history.learning_rate


def stop_at(wanted: int):
    def watch(step, model, history):
        if step == wanted:
            raise KeyboardInterrupt

    return watch


# --- the schedule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "warmup", "rising"), [(100, 0.1, 10), (2000, 0.1, 200), (40, 0.25, 10), (7, 0.5, 4)])
def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine(steps, warmup, rising):
    rates = [schedule(step, steps, warmup) for step in range(steps)]
    assert rates[:rising] == pytest.approx([(step + 1) / rising for step in range(rising)])
    assert rates[rising:] == pytest.approx(
        [math.cos(math.pi / 2 * (i / (steps - rising))) ** 2 for i in range(steps - rising)]
    )
    assert max(rates) == 1
    assert rates[rising - 1 :] == sorted(rates[rising - 1 :], reverse=True)
    assert 0 < rates[-1] < 1.0001 * math.cos(math.pi / 2 * (1 - 1 / (steps - rising))) ** 2
    assert schedule(steps, steps, warmup) == pytest.approx(0, abs=1e-12)


def test_a_tenth_of_the_steps_is_the_warm_up_and_at_least_one():
    assert [schedule(step, 30) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [schedule(step, 3, 0.0) for step in range(3)] == pytest.approx([1, 1, 0.5])
    assert [schedule(step, 4, 1.0) for step in range(4)] == [0.25, 0.5, 0.75, 1]


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_fit_is_the_loop_written_out(config, randomize, clip):
    torch.manual_seed(1)
    ours, theirs = (randomize(VisionTransformer(config)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    steps, batch, rate, decay = 12, 5, 0.01, 0.3
    fitted = fit(
        ours,
        Bars(),
        steps=steps,
        batch_size=batch,
        learning_rate=rate,
        weight_decay=decay,
        warmup=0.25,
        clip=clip,
        progress=False,
    )

    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in theirs.named_parameters()}
    losses, norms = [], []
    for step in range(steps):
        images, labels, _ = Bars().sample(batch, draw=step)
        logits = theirs(images)
        loss = -logits.log_softmax(-1)[range(batch), labels].mean()
        gradients = dict(zip(moments, torch.autograd.grad(loss, list(theirs.parameters())), strict=True))
        norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients.values()))
        lr = rate * ((step + 1) / 3 if step < 3 else 0.5 + 0.5 * math.cos(math.pi * (step - 3) / 9))
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                gradient, (mean, square) = gradients[name] * min(1, clip / norm), moments[name]
                mean.mul_(0.9).add_(0.1 * gradient)
                square.mul_(0.95).add_(0.05 * gradient**2)
                parameter.mul_(1 - lr * decay)
                change = mean / (1 - 0.9 ** (step + 1)) / ((square / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
                parameter.sub_(lr * change)
        losses.append(loss.item())
        norms.append(norm)
        assert fitted.history.accuracy[step] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
        assert fitted.history.learning_rate[step] == pytest.approx(lr)
    assert fitted.history.loss == pytest.approx(losses, abs=1e-4)
    assert min(norms) > 0.05
    assert_weights_close(ours, theirs)


def test_the_first_loss_is_that_of_not_knowing(train):
    for classes in (3, 10):
        config = replace(train.args[0], classes=classes)
        history = fit(config, Bars(3), steps=1, batch_size=16, progress=False).history
        assert history.loss == [pytest.approx(math.log(classes), abs=1e-6)]


def test_the_history_has_an_entry_for_every_step(train):
    model, history = train()
    assert isinstance(model, VisionTransformer)
    assert [len(series) for series in measured(history)] == [10, 10, 10]
    assert all(isinstance(number, float) for series in measured(history) for number in series)
    assert all(0 <= share <= 1 for share in history.accuracy)
    assert history.seconds > 0
    assert not any(module.training for module in model.modules())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_one_batch_can_be_learned_by_heart(config):
    data = Bars(always=5)
    model, history = fit(config, data, steps=80, batch_size=8, learning_rate=0.02, progress=False)
    assert history.loss[-1] < 0.05
    assert history.accuracy[-1] == 1
    images, labels, _ = data.sample(8, draw=0)
    assert torch.equal(model(images).argmax(-1), labels)


def test_what_is_learned_holds_for_other_draws(config):
    model, _ = fit(config, Bars(), steps=150, batch_size=16, learning_rate=0.01, progress=False)
    assert evaluate(model, Bars(), 500) > 0.9


def test_the_same_seed_gives_the_same_model_bit_for_bit(train):
    first = train(seed=3)
    torch.manual_seed(12345)
    second = train(seed=3)
    assert same(first.model, second.model)
    assert measured(first.history) == measured(second.history)
    other = train(seed=4)
    assert not same(first.model, other.model)
    assert first.history.loss != other.history.loss


def test_the_same_seed_drops_the_same(train, config):
    dropping = functools.partial(
        train.func, replace(config, dropout=0.3), Bars(), steps=5, batch_size=6, progress=False
    )
    first, second = dropping(), dropping()
    assert same(first.model, second.model)
    assert not same(first.model, dropping(seed=1).model)
    assert not same(first.model, train(steps=5).model)


def test_another_seed_drops_something_else(config, randomize):
    torch.manual_seed(1)
    start = randomize(VisionTransformer(replace(config, dropout=0.3)))
    ends = [fit(copy.deepcopy(start), Bars(), steps=2, batch_size=6, seed=seed, progress=False) for seed in (0, 0, 1)]
    assert ends[0].history.loss == ends[1].history.loss
    assert ends[0].history.loss != ends[2].history.loss


def test_the_randomness_of_others_is_not_touched(train):
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_dice_of_the_gpus_are_not_touched(train, config, monkeypatch):
    dice = ["the reader's", "another's"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: dice[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: dice.__setitem__(device, state))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: dice.__setitem__(slice(None), [seed, seed]))
    init_model(config, Bars())
    assert dice == ["the reader's", "another's"]
    train(watch=lambda *_: dice.reverse())
    assert dice == ["the reader's", "another's"]  # turned round at each of ten steps


def test_every_batch_is_the_draw_of_its_step(config):
    data = Bars()
    fit(config, data, steps=4, batch_size=6, progress=False)
    assert data.asked[-4:] == [(6, 0), (6, 1), (6, 2), (6, 3)]


def test_black_images_do_no_harm(config):
    class Night(Bars):
        def sample(self, count, draw):
            images, labels, masks = super().sample(count, draw)
            return torch.zeros_like(images), labels, masks

    model, history = fit(config, Night(), steps=3, batch_size=6, progress=False)
    assert all(map(math.isfinite, history.loss))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_watch_sees_the_model_and_its_history_before_every_step(train, config):
    seen, weights, told = [], [], []

    def watch(step, model, history):
        seen.append((step, model.training))
        told.append(tuple(map(list, measured(history))))
        weights.append(model.head.logits.weight.detach().clone())

    fitted = train(watch=watch)
    assert seen == [(step, True) for step in range(10)]
    assert told == [tuple(series[:step] for series in measured(fitted.history)) for step in range(10)]
    assert torch.equal(weights[0], torch.zeros(3, 8))  # as it starts
    assert len({tensor.sum().item() for tensor in weights}) == 10
    assert same(fitted.model, train().model)
    assert not torch.equal(weights[-1], fitted.model.head.logits.weight)


def test_any_module_is_trained_where_it_stands():
    module = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    before = module[1].weight.detach().clone()
    fitted = fit(module, Bars(), steps=60, batch_size=16, learning_rate=0.05, progress=False)
    assert fitted.model is module
    assert not module.training
    assert not torch.equal(module[1].weight, before)
    assert fitted.history.loss[-1] < fitted.history.loss[0]
    assert evaluate(module, Bars(), 300) > 0.9


def test_what_is_frozen_stays(config):
    model = VisionTransformer(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    fit(model, Bars(), steps=5, batch_size=6, weight_decay=0.5, progress=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.logits.weight", "head.logits.bias"}


# --- where a training starts -------------------------------------------------------------------------------------


def test_a_fresh_model_is_the_same_for_the_same_seed(config):
    first = init_model(config, Bars(), 3)
    torch.manual_seed(12345)
    assert same(first, init_model(config, Bars(), 3))
    assert not same(first, init_model(config, Bars(), 4))
    assert same(init_model(config, Bars()), init_model(config, Bars(), 0))


def test_a_fresh_model_neither_touches_the_randomness_of_others_nor_takes_a_draw_of_the_data(config):
    before, digits = torch.get_rng_state(), ClutteredDigits()
    init_model(config, Bars())
    init_model(ViTConfig(48, 24, dim=8, depth=1, heads=1, hidden=8, classes=10), digits)
    assert torch.equal(torch.get_rng_state(), before)
    assert digits.draws == 0


@pytest.mark.parametrize("seed", [0, 5])
def test_fit_starts_from_the_fresh_model_of_its_seed(train, config, seed):
    found = []

    def watch(step, model, history):
        found.append(same(model, init_model(config, Bars(), seed)))

    train(steps=2, seed=seed, watch=watch)
    assert found == [True, False]


def test_every_weight_of_a_fresh_model_can_be_learned(config):
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in init_model(config, Bars()).parameters()
    )


def test_the_blocks_of_a_fresh_model_start_with_xaviers_numbers_and_those_of_queries_and_keys_twice_as_large(config):
    model = init_model(replace(config, dim=32, hidden=64), Bars())
    with torch.no_grad():
        for block in model.blocks:
            queries_and_keys = block.attention.qkv.weight[:64]
            assert queries_and_keys.abs().max() > 1.9 * math.sqrt(6 / (32 + 96))
            queries_and_keys /= 2
    matrices = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    assert len(matrices) == 2 * 4
    for matrix in matrices:
        limit = math.sqrt(6 / sum(matrix.weight.shape))
        assert 0.95 * limit < matrix.weight.abs().max() <= limit
        assert matrix.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)
        assert not matrix.bias.any()
    assert not model.head.logits.weight.any()


def test_a_fresh_model_reads_pixels_as_if_their_mean_were_0_and_their_deviation_1(config):
    shown, (images, _, _) = torch.rand(20, 1, 4, 6), Bars().sample(256, draw=0)
    for gain, offset in ((1, 0), (0.1, 0.3), (7, -2)):

        class Other(Bars):
            def sample(self, count, draw, gain=gain, offset=offset):
                images, labels, masks = super().sample(count, draw)
                return gain * images + offset, labels, masks

        embedding = init_model(replace(config, dim=32), Other()).patch_embedding
        # Xavier's numbers, for pixels that are standardised
        limit, spread = math.sqrt(6 / (32 + 4)), gain * images.numpy().std(ddof=1)
        assert 0.95 * limit < spread * embedding.projection.weight.abs().max() <= 1.0001 * limit
        even = torch.full((1, 1, 4, 6), gain * images.mean().item() + offset)
        assert_close(embedding(even), torch.zeros(1, 6, 32), rtol=0, atol=1e-4)
        if (gain, offset) == (1, 0):
            expected = embedding(shown)
        assert_close(embedding(gain * shown + offset), expected, rtol=0, atol=1e-3)


def test_the_positions_of_a_fresh_model_are_as_loud_as_its_patches(config):
    large = replace(config, image_size=(40, 60), dim=32)
    positions = init_model(large, Bars(shape=(1, 40, 60))).position_embedding.positions
    assert positions.shape == (1, 601, 32)
    assert positions.mean().item() == pytest.approx(0, abs=0.02)
    assert positions.std().item() == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("positions", ["sincos", "none"])
def test_positions_that_are_not_learned_are_left_as_they_are(config, positions):
    other = replace(config, positions=positions)
    plain, model = VisionTransformer(other), init_model(other, Bars())
    assert not [name for name, _ in model.named_parameters() if "position" in name]
    assert all(map(torch.equal, plain.position_embedding.buffers(), model.position_embedding.buffers()))


# --- the optimizer -----------------------------------------------------------------------------------------------


def test_by_default_the_second_moment_remembers_20_steps(train):
    asked = []

    def spy(parameters, **settings):
        asked.append(settings)
        return adamw(parameters, **settings)

    chosen = train(optimizer=spy, weight_decay=0.2)
    assert asked == [{"lr": 3e-3, "weight_decay": 0.2}]
    made = adamw([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert type(made) is torch.optim.AdamW
    assert made.defaults["betas"] == (0.9, 0.95)
    assert same(chosen.model, train(weight_decay=0.2).model)
    assert not same(chosen.model, train(optimizer=torch.optim.AdamW, weight_decay=0.2).model)


def sgd(parameters, lr, weight_decay):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)


def test_stochastic_gradient_descent_can_be_chosen(config, randomize):
    torch.manual_seed(1)
    ours, theirs = (randomize(VisionTransformer(config)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    recipe = dict(learning_rate=0.1, weight_decay=0.01, warmup=0.0, clip=1e9, progress=False)
    fit(ours, Bars(), steps=3, batch_size=6, optimizer=sgd, **recipe)
    speeds = [torch.zeros_like(parameter) for parameter in theirs.parameters()]
    for step, share in enumerate((1, 1, 0.5)):
        images, labels, _ = Bars().sample(6, draw=step)
        loss = -theirs(images).log_softmax(-1)[range(6), labels].mean()
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        with torch.no_grad():
            for parameter, gradient, speed in zip(theirs.parameters(), gradients, speeds, strict=True):
                speed.mul_(0.9).add_(gradient + 0.01 * parameter)
                parameter.sub_(0.1 * share * speed)
    for name, tensor in ours.state_dict().items():
        assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=1e-4, msg=name)


def test_a_run_with_another_optimizer_goes_on_too_and_is_another_run(train, tmp_path):
    state = tmp_path / "run.partial"
    train(optimizer=sgd, state=state, save_every=4, watch=stop_at(6))
    with pytest.raises(ValueError, match=r"^.*run\.partial is the state of another run"):
        train(state=state, save_every=4, watch=refuse)
    resumed = train(optimizer=sgd, state=state, save_every=4)
    assert same(resumed.model, train(optimizer=sgd).model)


# --- what is refused before anything is trained ------------------------------------------------------------------


def refuse(*_):
    raise AssertionError("something was trained")


@pytest.mark.parametrize("number", [0, -1, -100])
@pytest.mark.parametrize("name", ["steps", "batch", "save_every"])
def test_a_number_below_1_is_refused(config, name, number):
    data = Bars()
    with pytest.raises(ValueError, match=rf"\b{name} {number}\b.* must be at least 1$"):
        fit(config, data, **{name: number}, watch=refuse, progress=False)
    assert data.asked == []


@pytest.fixture(params=["config", "model"])
def untrained(request):
    """From a config, or from a model of that config."""
    return lambda config: config if request.param == "config" else VisionTransformer(config)


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 6, 4), (1, 4, 8), (1, 8, 6)])
def test_data_of_another_size_are_refused(config, untrained, shape):
    message = f"the data's images are {shape} (channels, height, width), but the config says (1, 4, 6)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(untrained(config), Bars(shape=shape), steps=2, watch=refuse, progress=False)


def test_a_label_out_of_range_is_refused(config, untrained):
    with pytest.raises(ValueError, match=r"^label 3 is out of range for 3 classes, 0 to 2$"):
        fit(untrained(config), Bars(4), steps=2, watch=refuse, progress=False)


@pytest.mark.parametrize("label", [-1, -100, 3])
def test_a_rare_label_out_of_range_is_refused(config, untrained, label):
    """-100 is what cross_entropy leaves out without a word."""
    data = Bars()
    data.labels = torch.tensor([0, 1, 2] * 100 + [label])
    with pytest.raises(ValueError, match=rf"^label {label} is out of range for 3 classes, 0 to 2$"):
        fit(untrained(config), data, steps=2, watch=refuse, progress=False)


def test_digits_do_not_fit_nine_classes():
    config = ViTConfig(48, 24, dim=8, depth=1, heads=1, hidden=8, classes=9)
    with pytest.raises(ValueError, match=r"^label 9 is out of range for 9 classes, 0 to 8$"):
        fit(config, ClutteredDigits(), steps=1, watch=refuse, progress=False)


def test_a_batch_that_cannot_be_shared_is_refused(train):
    accelerator = SimpleNamespace(process_index=0, num_processes=4)
    message = "a batch of 6 cannot be shared by 4 processes; choose a multiple of 4"
    with pytest.raises(ValueError, match=f"^{message}$"):
        train(accelerator=accelerator, watch=refuse)


# --- a stop by the keyboard, and the bar -------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 7])
def test_a_stop_by_the_keyboard_leaves_the_model_and_its_history(train, step):
    model, history = train(watch=stop_at(step))
    assert [len(series) for series in measured(history)] == [step] * 3
    assert not model.training
    assert model(torch.rand(2, 1, 4, 6)).shape == (2, 3)
    assert history.loss == train().history.loss[:step]


def test_a_stop_within_a_step_leaves_the_model_and_its_history(train, config):
    class Interrupted(Bars):
        def sample(self, count, draw):
            if draw == 4:
                raise KeyboardInterrupt
            return super().sample(count, draw)

    model, history = fit(config, Interrupted(), steps=10, batch_size=6, progress=False)
    assert measured(history) == tuple(series[:4] for series in measured(train().history))
    assert same(model, train(watch=stop_at(4)).model)


def test_other_errors_are_not_swallowed(train):
    def watch(step, model, history):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=r"^mine$"):
        train(watch=watch)


def test_the_bar_goes_to_standard_output(train, capsys):
    train(progress=True)
    out, err = capsys.readouterr()
    assert "10/10" in out
    assert "loss=" in out
    assert err == ""


def test_without_progress_nothing_is_printed(train, capsys):
    train()
    assert capsys.readouterr() == ("", "")


# --- a run that goes on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("stopped", "first"), [(6, 4), (8, 8), (9, 8)])
def test_an_interrupted_run_goes_on_and_ends_the_same(config, tmp_path, dropout, stopped, first):
    state = tmp_path / "run.partial"
    run = functools.partial(
        fit, replace(config, dropout=dropout), Bars(), steps=11, batch_size=6, state=state, save_every=4, progress=False
    )
    whole = run(state=None)
    run(watch=stop_at(stopped))
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]

    seen = []
    torch.manual_seed(777)
    resumed = run(watch=lambda step, model, history: seen.append(step))
    assert seen == list(range(first, 11))
    assert measured(resumed.history) == measured(whole.history)
    assert same(resumed.model, whole.model)
    assert not resumed.model.training


def test_keeping_a_run_changes_nothing_of_it(train, tmp_path):
    kept = train(state=tmp_path / "run.partial", save_every=3)
    assert measured(kept.history) == measured(train().history)
    assert same(kept.model, train().model)


def test_a_run_that_was_kept_at_its_end_is_only_read(train, tmp_path):
    state = tmp_path / "run.partial"
    ended = train(state=state, save_every=5)
    before = state.read_bytes()
    again = train(state=state, save_every=5, watch=refuse)
    assert same(again.model, ended.model)
    assert measured(again.history) == measured(ended.history)
    assert state.read_bytes() == before


def test_the_time_of_both_parts_is_added(train, tmp_path):
    state = tmp_path / "run.partial"
    train(state=state, save_every=4, watch=stop_at(4))
    with safe_open(state, framework="pt") as file:
        kept = json.loads(file.metadata()["history"])
    kept["seconds"] = 1000.0
    tensors, facts = loop.read_tensors(state)
    loop.write_tensors(state, tensors, **facts | {"history": kept})
    assert 1000 < train(state=state, save_every=4).history.seconds < 1060


def test_any_module_goes_on(tmp_path):
    def run(watch=None, state=None):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
        return fit(module, Bars(), steps=9, batch_size=6, state=state, save_every=3, watch=watch, progress=False)

    whole, state = run(), tmp_path / "run.partial"
    run(stop_at(5), state)
    assert same(run(state=state).model, whole.model)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 20},
        {"batch": 12},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.01},
        {"warmup": 0.2},
        {"clip": 2.0},
        {"seed": 1},
        {"config": {"depth": 1}},
        {"config": {"heads": 4}},
        {"config": {"dropout": 0.1}},
    ],
    ids=str,
)
def test_the_state_of_another_run_is_refused_and_stays(train, config, tmp_path, changes):
    state = tmp_path / "run.partial"
    train(state=state, save_every=4, watch=stop_at(5))
    before = state.read_bytes()
    other = replace(config, **changes.pop("config", {}))
    with pytest.raises(
        ValueError, match=r"^.*run\.partial is the state of another run \(.*\); delete it or name anoth"
    ):
        fit(other, Bars(), **dict(train.keywords, **changes), state=state, save_every=1, watch=refuse)
    assert state.read_bytes() == before


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_the_state_of_a_run_on_other_data_is_refused_and_stays(train, config, tmp_path, changed):
    class Other(Bars):
        def sample(self, count, draw):
            images, labels, masks = super().sample(count, draw)
            return (images + 0.01, labels, masks) if changed == "images" else (images, (labels + 1) % 3, masks)

    state = tmp_path / "run.partial"
    train(state=state, save_every=4, watch=stop_at(5))
    before = state.read_bytes()
    with pytest.raises(ValueError, match=r"^.*run\.partial is the state of another run \(.*mean 0\.\d{4}, deviation"):
        fit(config, Other(), **train.keywords, state=state, save_every=1, watch=refuse)
    assert state.read_bytes() == before


def test_a_state_that_is_cut_off_is_refused_and_stays(train, tmp_path):
    state = tmp_path / "run.partial"
    train(state=state, save_every=4, watch=stop_at(5))
    content = state.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        state.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"^run\.partial is no whole safetensors checkpoint \("):
            train(state=state, save_every=1, watch=refuse)
        assert state.read_bytes() == content[:length]
        assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]


# --- evaluate ----------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Reads the class off the brightest column, and says the next one where the first pixel is above the limit."""

    def __init__(self, limit: float = 2.0):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))
        self.trained = []

    def forward(self, images):
        self.trained.append(self.training)
        labels = images.mean(dim=(1, 2)).argmax(dim=-1)
        return F.one_hot((labels + (images[:, 0, 0, 5] > self.limit)) % 3, 3).float()


def test_the_accuracy_is_the_share_of_images_named_right():
    assert evaluate(Reader(), Bars(), 600) == 1
    assert evaluate(Reader(-1.0), Bars(), 600) == 0
    shown = torch.cat([Bars().sample(250, draw)[0] for draw in range(3)])[:600]
    wrong = int((shown[:, 0, 0, 5] > 0.8).sum())
    assert 60 < wrong < 180
    assert evaluate(Reader(0.8), Bars(), 600) == (600 - wrong) / 600


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        (1, [(1, 0)]),
        (250, [(250, 0)]),
        (600, [(250, 0), (250, 1), (250, 2)]),
        (2000, [(250, draw) for draw in range(8)]),
    ],
)
def test_as_many_images_are_shown_as_were_asked_for_and_always_the_same(count, asked):
    data, model = Bars(), Reader(0.8)
    first = evaluate(model, data, count)
    assert data.asked == asked
    assert evaluate(model, data, count) == first
    assert data.asked == asked * 2


def test_of_a_fixed_set_every_picture_is_shown_before_any_comes_again():
    class Diary(Reader):
        def forward(self, images):
            seen.extend(images.tolist())
            return torch.zeros(len(images), 1)

    seen, numbers = [], Pictures(torch.arange(300), torch.zeros(300, dtype=torch.long))
    assert evaluate(Diary(), numbers, 300) == 1
    assert sorted(seen) == list(range(300))


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_is_evaluated_in_eval_mode_and_left_in_its_own(mode):
    model = Reader().train(mode)
    evaluate(model, Bars(), 300)
    assert model.trained == [False, False]
    assert model.training == mode


def test_a_model_that_fails_is_left_in_its_mode_too(config):
    model = VisionTransformer(config).train()
    with pytest.raises(ValueError, match="but the config says"):
        evaluate(model, Bars(shape=(1, 6, 6)), 10)
    assert model.training


def test_evaluating_learns_nothing(config):
    model = VisionTransformer(config)
    model.head.logits.weight.data.normal_()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, Bars(), 300)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [0, -1])
def test_no_images_are_refused(count):
    with pytest.raises(ValueError, match=rf"^count is {count}; it must be at least 1$"):
        evaluate(Reader(), Bars(), count)


# --- the command line --------------------------------------------------------------------------------------------

TINY = [
    "--patch-size",
    "24",
    "--heads",
    "2",
    "--dim",
    "8",
    "--depth",
    "1",
    "--batch-size",
    "8",
    "--learning-rate",
    "0.02",
]


def test_the_command_writes_a_checkpoint_with_its_config_and_scores(tmp_path, capsys):
    output = tmp_path / "new" / "tiny.safetensors"
    main([*TINY, "--steps", "10", "--seed", "3", "--losses", "4", "--output", str(output)])
    assert [path.name for path in output.parent.iterdir()] == ["tiny.safetensors"]
    model, scores = load_checkpoint(output)
    assert model.config == ViTConfig(48, 24, dim=8, depth=1, heads=2, hidden=16, classes=10)
    assert scores["test_images"] == 2000
    assert scores["test_accuracy"] == evaluate(model, ClutteredDigits("test"), 2000)
    recipe = dict(steps=10, batch_size=8, learning_rate=0.02, seed=3)
    assert scores.items() >= recipe.items()

    fitted = fit(model.config, ClutteredDigits("train"), **recipe, progress=False)
    assert same(model, copy.deepcopy(fitted.model).half().float())
    assert not same(model, fitted.model)
    assert output.stat().st_size < 2.5 * count_parameters(model) + 4000
    out, err = capsys.readouterr()
    [line] = [line for line in out.splitlines() if line.startswith("losses ")]
    assert [float(loss) for loss in line.split()[1:]] == pytest.approx(fitted.history.loss[:4], abs=1e-5)
    assert f"tiny.safetensors: {scores['test_accuracy']:.1%} of 2,000 test images right" in out
    assert err == ""


def test_the_command_takes_the_defaults_that_the_bundled_checkpoints_were_trained_with(tmp_path, monkeypatch):
    def stop(config, data, **recipe):
        raise LookupError(config, {name: recipe[name] for name in ("steps", "batch", "learning_rate", "seed")})

    monkeypatch.setattr(loop, "fit", stop)
    with pytest.raises(LookupError) as caught:
        main(["--output", str(tmp_path / "tiny.safetensors")])
    config, recipe = caught.value.args
    assert config == ViTConfig(48, 8, dim=64, depth=4, heads=4, hidden=128, classes=10)
    assert recipe == {"steps": 4000, "batch": 64, "learning_rate": 3e-3, "seed": 0}


def test_without_an_output_the_checkpoint_comes_along_with_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "TINY", tmp_path)
    main([*TINY, "--steps", "1"])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_p24_h2.safetensors"]
    assert "losses" not in capsys.readouterr().out


def test_a_command_that_was_stopped_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "fit", functools.partial(fit, save_every=4))
    output, whole = tmp_path / "tiny.safetensors", tmp_path / "whole.safetensors"
    command = [*TINY, "--steps", "10"]
    main([*command, "--output", str(whole)])
    sample = ClutteredDigits.sample

    def interrupted(self, count, draw):
        if draw == 6:
            raise KeyboardInterrupt
        return sample(self, count, draw)

    with monkeypatch.context() as patched:
        patched.setattr(ClutteredDigits, "sample", interrupted)
        main([*command, "--output", str(output)])
    assert "stopped after 6 steps; the same command goes on" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.partial", "whole.safetensors"]

    with pytest.raises(ValueError, match="is the state of another run"):
        main([*command, "--seed", "1", "--output", str(output)])
    main([*command, "--output", str(output)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors", "whole.safetensors"]
    (ours, mine), (theirs, their) = load_checkpoint(output), load_checkpoint(whole)
    assert same(ours, theirs)
    assert mine == their


@pytest.mark.parametrize(
    "wrong",
    [
        ["--steps", "0"],
        ["--steps", "-5"],
        ["--batch-size", "0"],
        ["--patch-size", "7"],
        ["--patch-size", "0"],
        ["--heads", "3"],
        ["--depth", "0"],
        ["--steps", "many"],
        ["--unknown", "1"],
        ["--output", "tiny.txt"],
        ["--output", "tiny"],
    ],
    ids=" ".join,
)
def test_with_bad_arguments_nothing_is_written(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "TINY", tmp_path)
    for name in ("tiny.safetensors", "tiny.txt"):
        (tmp_path / name).write_bytes(b"old")
    arguments = [*TINY, "--steps", "2", "--output", "tiny.safetensors", *wrong]
    with pytest.raises((ValueError, SystemExit)) as caught:
        main(arguments)
    assert caught.type is ValueError or caught.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors", "tiny.txt"]
    assert (tmp_path / "tiny.safetensors").read_bytes() == (tmp_path / "tiny.txt").read_bytes() == b"old"


def test_two_processes_have_the_losses_of_one(tmp_path, capsys):
    """torchrun, without any setting of Accelerate's: gloo on processors, each of the two takes half of every batch."""
    command = [*TINY, "--steps", "12", "--losses", "10"]
    main([*command, "--output", str(tmp_path / "one.safetensors")])
    environment = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "vit_walkthrough.train.loop", *command, "--output", str(tmp_path / "two.safetensors")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    losses = []
    for out in (capsys.readouterr().out, done.stdout):
        [line] = [line for line in out.splitlines() if line.startswith("losses ")]
        losses.append([float(loss) for loss in line.split()[1:]])
    one, two = losses
    assert len(one) == 10
    assert two == pytest.approx(one, abs=1e-4)
    assert max(one) - min(one) > 0.02  # something was learned, or there would be nothing to compare
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]
    (ours, mine), (theirs, their) = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert their["test_accuracy"] == pytest.approx(mine["test_accuracy"], abs=0.01)
    assert_weights_close(ours, theirs)
