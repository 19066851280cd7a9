"""ClutteredDigits: the digit is where the mask says, draws come from their numbers, train and test are apart."""

import math
from contextlib import contextmanager, nullcontext

import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from vit_walkthrough.data import ClutteredDigits, _turned

SPLITS = ["train", "validation", "test"]


def equal(one, other) -> bool:
    return all(map(torch.equal, one, other))


@pytest.fixture(params=SPLITS)
def digits(request):
    return ClutteredDigits(request.param)


def inside(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The squares of the masks: (count, 3, side, side)."""
    side = images.shape[-1] // 2
    return torch.stack([image[:, mask].reshape(3, side, side) for image, mask in zip(images, masks, strict=True)])


def inked(ink: float, **options) -> ClutteredDigits:
    """Digits whose scans are all full of ink, or all empty."""
    digits = ClutteredDigits("test", **options)
    digits.scans.fill_(ink)
    return digits


# --- what a sample is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 34, 48])
@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_images_labels_and_square_masks(split, size):
    images, labels, masks = ClutteredDigits(split, size).sample(100, draw=0)
    assert (images.shape, labels.shape, masks.shape) == ((100, 3, size, size), (100,), (100, size, size))
    assert (images.dtype, labels.dtype, masks.dtype) == (torch.float32, torch.int64, torch.bool)
    assert images.is_contiguous()
    assert 0 <= images.min() < 0.1
    assert 0.8 < images.max() <= 1
    assert set(labels.tolist()) == set(range(10))
    for mask in masks:
        rows, cols = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
        assert mask.sum() == size * size / 4
        assert rows[-1] - rows[0] + 1 == cols[-1] - cols[0] + 1 == size // 2


@pytest.mark.parametrize(
    ("split", "means", "labels", "corners"),
    [
        ("train", (0.153126, 0.168606, 0.162953), [5, 7, 5, 8, 2, 9], [129, 52, 289, 659, 572, 213]),
        ("validation", (0.147804, 0.148405, 0.175924), [6, 3, 4, 6, 7, 3], [726, 811, 289, 57, 42, 493]),
        ("test", (0.142061, 0.162622, 0.134166), [8, 7, 8, 8, 6, 4], [208, 643, 496, 687, 579, 564]),
    ],
)
def test_the_numbers_decide_what_is_drawn(split, means, labels, corners):
    """The same on every machine, or the bundled models and the notebooks' numbers would belong to other digits."""
    images, drawn, masks = ClutteredDigits(split, 40, seed=2).sample(6, draw=3)
    assert_close(images.mean(dim=(0, 2, 3)), torch.tensor(means), rtol=0, atol=1e-5)
    assert drawn.tolist() == labels
    assert masks.flatten(1).int().argmax(dim=1).tolist() == corners


def test_the_digit_may_stand_anywhere_and_each_place_is_as_likely():
    _, _, masks = ClutteredDigits(size=32).sample(4000, draw=0)
    for along in (masks.any(dim=2), masks.any(dim=1)):
        counts = torch.bincount(along.int().argmax(dim=1), minlength=17)
        assert len(counts) == 17
        assert 0.7 < counts.min() * 17 / 4000 < counts.max() * 17 / 4000 < 1.3


# --- the digit is in the mask ------------------------------------------------------------------------------------


def test_the_mask_is_where_the_digit_is_painted():
    """Were every scan full of ink, the square of the mask would have one colour, and nothing else would."""
    images, _, masks = inked(1).sample(50, draw=0)
    squares = inside(images, masks).flatten(2)
    assert_close(squares, squares[..., :1].expand_as(squares))
    for image, mask in zip(images, masks, strict=True):
        around = torch.nn.functional.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0].bool() & ~mask
        assert not (image[:, around] - image[:, mask][:, :1]).abs().amax(dim=0).lt(1e-6).all()


def test_the_handwriting_in_the_mask_is_a_scan_of_the_label(monkeypatch):
    """Found again among all 500 by correlation, and so upright, not mirrored and whole."""
    monkeypatch.setattr(ClutteredDigits, "FRAGMENTS", 0)
    digits = ClutteredDigits("test")
    images, labels, masks = digits.sample(100, draw=0)

    def standard(rows):
        rows = rows.flatten(1) - rows.flatten(1).mean(dim=1, keepdim=True)
        return rows / rows.norm(dim=1, keepdim=True)

    best, which = (standard(inside(images, masks).mean(dim=1)) @ standard(digits.scans).T).max(dim=1)
    assert best.min() > 0.9
    assert torch.equal(digits.labels[which], labels)


@pytest.mark.parametrize("share", [None, 0.3, 0.0])
def test_three_fragments_less_bright_than_the_digit_lie_around_it(share):
    """White scans: every fragment is a square of 8 x 8 pixels and as bright as 0.4 of its hue, or as is asked for."""
    asked = {} if share is None else {"dim_fragments": share}
    (images, _, masks), (empty, _, same) = (inked(ink, **asked).sample(200, draw=0) for ink in (1, 0))
    if share == 0:
        assert torch.equal(torch.where(masks[:, None], 0, images), torch.where(masks[:, None], 0, empty))
        return
    share = share or 0.4
    assert torch.equal(masks, same)
    added = torch.where(masks[:, None], 0, images - empty)
    pieces = (added != 0).any(dim=1).flatten(1).sum(dim=1)
    assert pieces.max() == 3 * 8 * 8
    assert 1 < (pieces.float() / 64).mean() < 3  # a part lies under the digit or under another
    assert added.max() <= 3 * share + 1e-6
    alone = pieces == 3 * 8 * 8
    assert alone.sum() > 10
    assert added[alone].max() == pytest.approx(share, abs=1e-3)
    assert empty.max() < 0.5


@pytest.mark.parametrize(("split", "augment"), [("train", None), ("train", False), ("test", None), ("test", True)])
def test_scans_are_turned_in_training_and_where_that_is_asked_for(monkeypatch, split, augment):
    """From one scan alone: its own shape in every image, or another one in each."""
    monkeypatch.setattr(ClutteredDigits, "FRAGMENTS", 0)
    digits = ClutteredDigits(split, scans=2, augment=augment)
    digits.scans[1] = digits.scans[0]
    images, _, masks = digits.sample(40, draw=0)
    ink = inside(images, masks)
    low, high = ink.amin(dim=(2, 3), keepdim=True), ink.amax(dim=(2, 3), keepdim=True)
    spread = ((ink - low) / (high - low)).mean(dim=1).std(dim=0).max()
    assert (spread > 0.25) == (augment or (augment is None and split == "train"))


def test_turning_keeps_the_digit_where_it_is():
    digits = ClutteredDigits().scans[:60]
    assert_close(_turned(digits, torch.zeros(60, 4)), digits, rtol=0, atol=1e-5)
    turned = _turned(digits, 2 * torch.rand(60, 4) - 1)
    assert 0 <= turned.min()
    assert turned.max() <= 1 + 1e-6
    assert torch.nn.functional.cosine_similarity(turned.flatten(1), digits.flatten(1)).min() > 0.6
    side = torch.linspace(-1, 1, 24)
    for axis in (1, 2):
        centres = [(ink[:, 0].sum(dim=3 - axis) * side).sum(1) / ink.sum(dim=(1, 2, 3)) for ink in (digits, turned)]
        assert (centres[0] - centres[1]).abs().max() < 0.1


# --- numbers decide what is drawn --------------------------------------------------------------------------------


def test_every_draw_seed_and_split_gives_other_images_in_other_places(digits):
    images, _, masks = digits.sample(20, draw=0)
    others = [
        digits.sample(20, draw=1),
        ClutteredDigits(digits.split, seed=1).sample(20, draw=0),
        *(ClutteredDigits(split).sample(20, draw=0) for split in SPLITS if split != digits.split),
    ]
    for other, _, places in others:
        assert (other == images).float().mean() < 0.02  # not even the noise
        assert not torch.equal(places, masks)


def test_draws_advance_where_no_number_is_given(digits):
    assert equal(digits.sample(4), digits.sample(4, draw=0))
    assert equal(digits.sample(4), digits.sample(4, draw=1))
    digits.sample(4, draw=9)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"^count is {count}; .* 1$"):
            digits.sample(count)
    assert equal(digits.sample(4), digits.sample(4, draw=2))


@contextmanager
def in_double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


AROUND = {
    "nothing": nullcontext,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "another device": lambda: torch.device("meta"),
    "another dtype": in_double_precision,
}


@pytest.mark.parametrize("around", AROUND)
def test_what_surrounds_it_neither_matters_nor_is_touched(digits, around):
    first = digits.sample(10, draw=3)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    with AROUND[around]():
        again = ClutteredDigits(digits.split).sample(10, draw=3)
    assert equal(again, first)
    assert torch.equal(torch.get_rng_state(), before)


# --- train, test and fewer scans ---------------------------------------------------------------------------------


def test_the_splits_share_no_scan_and_are_all_there_are():
    """Back at 8 x 8 pixels, each of ours is one of scikit-learn's, and has its label."""
    scans, labels = load_digits(return_X_y=True)
    ours = []
    for split, count in (("train", 1097), ("validation", 200), ("test", 500)):
        digits = ClutteredDigits(split, 48, seed=5)
        assert len(digits.scans) == len(digits.labels) == count
        assert (digits.labels.bincount(minlength=10) > count / 20).all()
        small = torch.nn.functional.avg_pool2d(digits.scans, 3).flatten(1)
        nearest = torch.cdist(small, torch.tensor(scans / 16, dtype=torch.float32)).argmin(dim=1)
        assert torch.equal(digits.labels, torch.tensor(labels)[nearest])
        assert torch.equal(ClutteredDigits(split, 48).scans, digits.scans)
        ours.append(digits.scans.flatten(1))
    assert len(torch.cat(ours).unique(dim=0)) == 1797


@pytest.mark.parametrize(
    ("split", "count"), [("train", 1), ("test", 2), ("train", 1097), ("validation", 200), ("test", 500)]
)
def test_fewer_scans_are_the_first_ones_in_the_same_places(split, count):
    few, all_ = ClutteredDigits(split, scans=count), ClutteredDigits(split)
    assert torch.equal(few.scans, all_.scans[:count])
    (_, labels, masks), (_, _, places) = few.sample(50, draw=0), all_.sample(50, draw=0)
    assert set(labels.tolist()) <= set(all_.labels[:count].tolist())
    assert torch.equal(masks, places)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[(dict(split=split), f"^split {split!r} .* train, validation, test$") for split in ("valid", "Train", "")],
        *[(dict(size=size), f"^size {size} .* 32$") for size in (49, 33, 30, 0, -48)],
        *[(dict(split="test", scans=scans), f"^scans is {scans}; test .* 1 to 500$") for scans in (0, -1, 501)],
        (dict(scans=1098), "^scans is 1098; train .* 1 to 1,097$"),
        *[(dict(dim_fragments=share), f"^dim_fragments is {share}; .* 0 to 1$") for share in (-0.1, 1.5, math.nan)],
    ],
)
def test_what_there_is_not_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClutteredDigits(**arguments)
