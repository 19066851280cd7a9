"""loop.py and optimizers.py: a step and the loop against ones written out here, where a training starts, and what is
refused; Muon beside torch's own and beside the singular value decomposition, AdamW for the rest."""

import copy
import functools
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train.finetune import Pictures
from vit_walkthrough.train.loop import best_device, evaluate, fit, init_model, schedule
from vit_walkthrough.train.optimizers import adamw, muon, orthogonal

pytestmark = pytest.mark.usefixtures("on_the_processor")


class Bars:
    """Noise, and a bright column that says the class. It counts how often it was asked."""

    def __init__(self, classes: int = 3, shape: tuple[int, int, int] = (1, 4, 6), gain: float = 1, offset: float = 0):
        self.classes, self.shape, self.gain, self.offset, self.asked = classes, shape, gain, offset, []

    def sample(self, count: int, draw: int):
        self.asked.append((count, draw))
        generator = torch.Generator().manual_seed(draw)
        labels = torch.randint(self.classes, (count,), generator=generator)
        images = torch.rand(count, *self.shape, generator=generator)
        images[torch.arange(count), :, :, labels] += 1
        return self.gain * images + self.offset, labels, torch.ones(count, *self.shape[1:], dtype=torch.bool)


@pytest.fixture
def config():
    return ViTConfig((4, 6), 2, channels=1, dim=8, depth=2, heads=2, hidden=16, classes=3)


@pytest.fixture
def train(config):
    return functools.partial(fit, config, Bars(), steps=10, batch_size=6, progress=False)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 3))


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_starts_from_the_model_of_its_seed_and_shows_its_history(config, train):
    seen, still = [], dict(learning_rate=0.0, weight_decay=0.0, seed=3)
    model, history = train(**still, watch=lambda step, model, history: seen.append(history))
    assert [same(model, init_model(config, Bars(), seed)) for seed in (3, 0)] == [True, False]
    assert all(each is history for each in seen)


@pytest.mark.parametrize(
    ("steps", "warmup", "rising"), [(100, 0.1, 10), (40, 0.25, 10), (7, 0.5, 4), (3, 0.0, 1), (2, 0.5, 1)]
)
def test_the_learning_rate_rises_in_a_line_and_falls_in_a_line(steps, warmup, rising):
    rates = [schedule(step, steps, warmup) for step in range(steps + 1)]
    falling = torch.linspace(1, 0, steps - rising + 1, dtype=torch.float64).tolist()
    assert rates == pytest.approx([(step + 1) / rising for step in range(rising)] + falling, abs=1e-12)
    assert [schedule(step, 100) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [schedule(step, 4, 1.0) for step in range(4)] == [0.25, 0.5, 0.75, 1]


def test_fit_is_the_loop_written_out(config, randomize):
    ours, losses, accuracies, norms = randomize(VisionTransformer(config), 0.5), [], [], []
    theirs = copy.deepcopy(ours)
    for parameter in ours.parameters():
        parameter.grad = torch.ones_like(parameter)  # a model may bring gradients, which must not count
    recipe = dict(learning_rate=0.01, weight_decay=0.3, warmup=0.25, optimizer=adamw, progress=False)
    fitted = fit(ours, Bars(), steps=12, batch_size=5, **recipe)

    optimizer = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.95), weight_decay=0.3)
    for step in range(12):
        images, labels, _ = Bars().sample(5, draw=step)
        logits = theirs(images)
        loss = -logits.log_softmax(-1)[range(5), labels].mean()
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        norms.append(math.sqrt(sum((gradient**2).sum().item() for gradient in gradients)))
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter.grad = gradient * min(1, 1 / norms[-1])
        share = (step + 1) / 3 if step < 3 else 1 - (step - 3) / 9
        optimizer.param_groups[0]["lr"] = 0.01 * share
        optimizer.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(-1) == labels).float().mean().item())
    assert min(norms) < 1 < max(norms)  # clipped in some steps
    assert fitted.history.loss == pytest.approx(losses, abs=1e-4)
    assert fitted.history.accuracy == pytest.approx(accuracies)
    # The bias of the keys changes nothing. Its gradient is a rounding error, which Adam makes large.
    for (name, tensor), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert name.endswith("qkv.bias") or (tensor - other).abs().max() <= 1e-3, name


def test_the_recipe_is_the_one_that_its_version_stands_for():
    config = ViTConfig(48, 12, dim=64, depth=4, heads=4, hidden=128, classes=10)
    losses = fit(config, ClutteredDigits("train"), steps=20, progress=False).history.loss
    assert losses[:6] == pytest.approx([2.30259, 2.31395, 2.29414, 2.31334, 2.27929, 2.31628], abs=1e-4)
    assert losses[-1] == pytest.approx(2.29994, abs=1e-3)


@pytest.mark.parametrize("kind", [torch.Tensor.byte, lambda labels: F.one_hot(labels, 3).float()])
def test_any_module_is_trained_in_place_on_numbers_of_classes_or_their_probabilities(kind):
    images, labels, _ = Bars().sample(300, draw=0)
    whole, data = Pictures(images, labels), Pictures(images, labels)
    data.labels = kind(labels)
    module, recipe = linear(), dict(steps=60, batch_size=16, learning_rate=0.05, progress=False)
    expected, fitted = fit(copy.deepcopy(module), whole, **recipe), fit(module, data, **recipe)
    assert fitted.model is module
    assert fitted.history.loss == pytest.approx(expected.history.loss, abs=1e-5)
    assert fitted.history.accuracy == expected.history.accuracy
    assert evaluate(module, whole, 300) > 0.9


def test_the_seed_alone_decides_and_the_reader_s_generators_are_left_untouched(config, randomize, monkeypatch):
    # With a single batch and a rate of 0, only dropout makes one loss differ from another.
    start, data = randomize(VisionTransformer(replace(config, dropout=0.3))), Pictures(*Bars().sample(6, 0)[:2])
    still = dict(steps=3, batch_size=6, learning_rate=0.0, progress=False)
    losses = [loss for seed in (0, 1) for loss in fit(copy.deepcopy(start), data, seed=seed, **still).history.loss]
    assert len({round(loss, 4) for loss in losses}) == 6

    train = functools.partial(fit, start.config, Bars(), steps=5, batch_size=6, progress=False)
    first, before, states = train(seed=3), torch.manual_seed(12345).get_state(), ["the reader's", "another's"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.__setitem__(device, state))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: states.__setitem__(slice(None), [seed, seed]))
    second, other = train(seed=3), train(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert states == ["the reader's", "another's"]
    assert (same(first.model, second.model), first.history.loss) == (True, second.history.loss)
    assert first.history.loss[1:] != other.history.loss[1:]


def test_it_trains_on_whatever_accelerator_is_there_and_not_on_one_that_torch_was_only_built_for(monkeypatch):
    assert best_device() == torch.device("cpu")
    there = {True: torch.device("mps"), False: torch.device("cuda")}
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: there[check_available])
    assert best_device() == torch.device("mps")


def test_parameters_that_are_not_held_get_no_gradient_and_do_not_enter_the_norm(config, randomize):
    start, with_gradient = randomize(VisionTransformer(config)), set()
    recipe = dict(steps=20, batch_size=6, learning_rate=0.3, progress=False)
    recipe["optimizer"] = lambda model, lr, _: torch.optim.SGD(model.head.parameters(), lr)
    ours, frozen = copy.deepcopy(start), copy.deepcopy(start).requires_grad_(False)
    frozen.head.requires_grad_(True)

    def watch(step, model, history):
        with_gradient.update(name for name, parameter in model.named_parameters() if parameter.grad is not None)

    assert fit(ours, Bars(), watch=watch, **recipe).history.loss == fit(frozen, Bars(), **recipe).history.loss
    assert (same(ours, frozen), same(ours.blocks, start.blocks), same(ours.head, start.head)) == (True, True, False)
    assert not with_gradient
    assert all(parameter.requires_grad for parameter in ours.parameters())


def test_pixels_are_read_as_if_their_mean_were_0_and_their_deviation_1(config):
    shown, (images, _, _) = torch.rand(20, 1, 4, 6), Bars().sample(256, draw=0)
    expected = init_model(replace(config, dim=32), Bars()).patch_embedding(shown)
    for gain, offset in ((1, 0), (0.1, 0.3), (7, -2)):
        embedding = init_model(replace(config, dim=32), Bars(gain=gain, offset=offset)).patch_embedding
        limit, deviation = math.sqrt(6 / (32 + 4)), gain * images.numpy().std(ddof=1)
        assert 0.95 * limit < deviation * embedding.projection.weight.abs().max() <= 1.0001 * limit
        even = torch.full((1, 1, 4, 6), gain * images.mean().item() + offset)
        assert_close(embedding(even), torch.zeros(1, 6, 32), rtol=0, atol=1e-4)
        assert_close(embedding(gain * shown + offset), expected, rtol=0, atol=1e-3)
    black = init_model(config, Bars(gain=0))
    assert all(parameter.isfinite().all() for parameter in black.parameters())


def test_data_that_cannot_be_asked_for_a_numbered_batch_and_numbers_below_1_are_refused(config):
    data, loader = Bars(), DataLoader(TensorDataset(*Bars().sample(9, draw=0)[:2]))
    of_fit, of_evaluate = functools.partial(fit, config), functools.partial(evaluate, linear())
    for use, name, number in ((of_fit, "steps", 0), (of_fit, "batch_size", -1), (of_evaluate, "count", 0)):
        with pytest.raises(TypeError, match=r"DataLoader.*Pictures"):
            use(loader)
        with pytest.raises(ValueError, match=rf"\b{name} is {number}\b"):
            use(data, **{name: number})
    assert data.asked == []


@pytest.mark.parametrize(
    ("change", "labels", "told"),
    [
        (lambda model: model.half(), torch.arange(3), "float16"),
        (lambda model: model.bfloat16(), torch.arange(3), "bfloat16"),
        (lambda model: model.requires_grad_(False), torch.arange(3), "requires_grad"),
        (None, torch.rand(9), "float32"),
        (None, torch.eye(3, dtype=torch.long), r"\(3, 3\)"),
        # Even a rare one; -100 is what cross_entropy leaves out without a word.
        *[(None, torch.tensor(300 * [0, 1, 2] + [n]), rf"{n}\b.*classes they must be 0 to 2$") for n in (-1, -100, 3)],
    ],
)
def test_weights_and_labels_that_cannot_be_trained_are_refused(config, change, labels, told):
    data, model = Bars(), VisionTransformer(config)
    data.labels = labels
    with pytest.raises(ValueError, match=told):
        fit(change(model) if change else config, data, progress=False)
    data.labels = torch.ones(9, dtype=torch.long)  # all may be the same
    fit(config, data, steps=1, batch_size=2, progress=False)


@pytest.mark.parametrize("optimizer", [adamw, muon, lambda model, lr, _: torch.optim.SGD(model.parameters(), lr)])
def test_a_learning_rate_that_explodes_is_told_before_the_weights_are_lost(config, optimizer):
    model = VisionTransformer(config)
    with pytest.raises(FloatingPointError, match=r"rate of [\d.]+e\+\d+"):
        fit(model, Bars(), learning_rate=1e25, optimizer=optimizer, steps=60, progress=False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with pytest.raises(FloatingPointError, match="loss is nan"):
        fit(linear(), Bars(offset=math.nan), steps=2, progress=False)
    with pytest.raises(FloatingPointError, match=r"smaller than 1e\+37"):  # no step comes after the last
        fit(config, Bars(), learning_rate=1e37, optimizer=optimizer, steps=1, progress=False)


@pytest.mark.parametrize("stop", [0, 7])
def test_a_stop_by_the_keyboard_leaves_the_model_and_its_history(train, config, stop):
    class Interrupted(Bars):
        def sample(self, count, draw):
            if (count, draw) == (6, stop):
                raise KeyboardInterrupt
            return super().sample(count, draw)

    def watch(step, model, history):
        if step == stop:
            raise KeyboardInterrupt

    whole = train().history
    before, within = train(watch=watch), train.func(config, Interrupted(), **train.keywords)
    for model, history in (before, within):
        assert (history.loss, history.accuracy) == (whole.loss[:stop], whole.accuracy[:stop])
        assert not model.training
    assert same(before.model, within.model)


def test_the_bar_goes_to_standard_output(train, capsys):
    train()
    assert capsys.readouterr() == ("", "")
    train(progress=True)
    out, err = capsys.readouterr()
    assert re.search(r"10/10.*loss=\d\.\d{3}", out)
    assert err == ""


class Reader(nn.Linear):
    """Reads the class off the brightest column, and says the next one where the first pixel is above 0.8."""

    def forward(self, images):
        assert not self.training
        labels = images.mean(dim=(1, 2)).argmax(dim=-1)
        return F.one_hot((labels + (images[:, 0, 0, 5] > 0.8)) % 3, 3).float()


@pytest.mark.parametrize(("count", "size", "draws"), [(1, 1, 1), (250, 250, 1), (600, 250, 3)])
def test_the_accuracy_is_the_share_of_always_the_same_images_named_right(count, size, draws):
    data = Bars()
    shown = torch.cat([Bars().sample(size, draw)[0] for draw in range(draws)])[:count]
    wrong = int((shown[:, 0, 0, 5] > 0.8).sum())
    for mode in (True, False):
        model = Reader(1, 1).train(mode)
        assert (evaluate(model, data, count), model.training) == ((count - wrong) / count, mode)
    assert data.asked == [(size, draw) for draw in range(draws)] * 2
    evaluate(Reader(1, 1), data)
    assert data.asked[2 * draws :] == [(250, draw) for draw in range(8)]  # 2,000 images by default


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (8, 40), (40, 8)])
def test_orthogonal_matrices_keep_the_singular_vectors_and_have_singular_values_near_1(rows, cols):
    matrices = torch.randn(3, rows, cols) * torch.tensor([1e-3, 1, 1e3])[:, None, None]
    matrices[0] += 0.01  # one strong direction
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    seen = left.mT @ orthogonal(matrices) @ right.mT
    found = seen.diagonal(dim1=1, dim2=2)
    assert_close(seen, torch.diag_embed(found), rtol=0, atol=1e-3)
    weak = values < 0.03 * values.norm(dim=1, keepdim=True)  # five rounds lift these only part of the way
    assert found[~weak].min() > 0.65
    assert found.max() < 1.25
    assert not orthogonal(torch.zeros(2, rows, cols)).any()


def test_a_matrix_of_a_block_steps_as_torchs_muon_and_everything_else_as_adamw(config, randomize):
    model = randomize(VisionTransformer(replace(config, dim=32, heads=4, hidden=48)))
    torchs, plain, before = (copy.deepcopy(model) for _ in range(3))
    matrices = [parameter for parameter in torchs.blocks.parameters() if parameter.ndim == 2]
    assert len(matrices) == 4 * model.config.depth
    settings = dict(momentum=0.9, nesterov=True, adjust_lr_fn="match_rms_adamw")
    theirs = torch.optim.Muon(matrices, lr=0.025, weight_decay=0.08, **settings)
    optimizers = muon(model, lr=0.01, weight_decay=0.2), theirs, adamw(plain, lr=0.01, weight_decay=0.2)
    for _ in range(4):
        for parameters in zip(*(each.parameters() for each in (model, torchs, plain)), strict=True):
            gradient = torch.randn(parameters[0].shape) + 5  # strong in one direction, as real ones are
            for parameter in parameters:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:  # torch's has 16 bits
            step = (parameter - before.get_parameter(name)).norm()
            assert (parameter - torchs.get_parameter(name)).norm() < 0.05 * step
        else:
            assert torch.equal(parameter, plain.get_parameter(name))
