"""ClutteredDigits: the digit is where the mask says, draws come from their numbers, train and test are apart."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.testing import assert_close

from vit_walkthrough import data
from vit_walkthrough.data import SPLITS, ClutteredDigits, _turned


@pytest.fixture(params=SPLITS)
def digits(request):
    return ClutteredDigits(request.param)


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


def test_the_handwriting_in_the_mask_is_a_scan_of_the_label(monkeypatch):
    """Found again among all 500 by correlation, and so upright, not mirrored and whole."""
    monkeypatch.setattr(data, "FRAGMENTS", 0)
    digits = ClutteredDigits("test")
    images, labels, masks = digits.sample(100, draw=0)
    seen = torch.stack([image[mask] for image, mask in zip(images.mean(dim=1), masks, strict=True)])
    which = torch.corrcoef(torch.cat([seen, digits.scans.flatten(1)]))[:100, 100:].max(dim=1)
    assert which.values.min() > 0.9
    assert torch.equal(digits.labels[which.indices], labels)


@pytest.mark.parametrize(("asked", "share"), [({}, 0.4), ({"dim_fragments": 0.3}, 0.3)])
def test_three_fragments_less_bright_than_the_digit_lie_around_it(asked, share):
    """White scans: every fragment is a square of 8 x 8 pixels and as bright as a share of its hue."""
    digits, drawn = ClutteredDigits("test", **asked), []
    for ink in (1, 0):
        digits.scans.fill_(ink)
        drawn.append(digits.sample(200, draw=0))
    (images, _, masks), (empty, _, same) = drawn
    assert torch.equal(masks, same)
    added = torch.where(masks[:, None], 0, images - empty)
    pieces = (added != 0).any(dim=1).flatten(1).sum(dim=1)
    alone = pieces == 3 * 8 * 8
    assert pieces.max() == 3 * 8 * 8
    assert 1 < (pieces.float() / 64).mean() < 3  # a part lies under the digit or under another
    assert alone.sum() > 10
    assert added[alone].max() == pytest.approx(share, abs=1e-3)
    assert empty.max() < 0.5


@pytest.mark.parametrize(("split", "augment"), [("train", None), ("train", False), ("test", None), ("test", True)])
def test_scans_are_turned_in_training_and_where_that_is_asked_for(split, augment):
    images, _, masks = ClutteredDigits(split, augment=augment).sample(40, draw=0)
    turned = (images != ClutteredDigits(split, augment=False).sample(40, draw=0)[0]).any(dim=1) & masks
    assert turned.flatten(1).any(dim=1).tolist() == [augment or (augment is None and split == "train")] * 40


def test_turning_keeps_the_digit_where_it_is():
    digits, side = ClutteredDigits().scans[:60], torch.linspace(-1, 1, 24)
    assert_close(_turned(digits, torch.zeros(60, 4)), digits, rtol=0, atol=1e-5)
    turned = _turned(digits, 2 * torch.rand(60, 4) - 1)
    assert 0 <= turned.min() <= turned.max() <= 1 + 1e-6
    assert F.cosine_similarity(turned.flatten(1), digits.flatten(1)).min() > 0.6
    for axis in (1, 2):
        centres = [(ink[:, 0].sum(dim=3 - axis) * side).sum(1) / ink.sum(dim=(1, 2, 3)) for ink in (digits, turned)]
        assert (centres[0] - centres[1]).abs().max() < 0.1


def test_every_draw_seed_and_split_gives_other_images_in_other_places(digits):
    images, _, masks = digits.sample(20, draw=0)
    others = [digits.sample(20, draw=1), ClutteredDigits(digits.split, seed=1).sample(20, draw=0)]
    others += [ClutteredDigits(split).sample(20, draw=0) for split in SPLITS if split != digits.split]
    for other, _, places in others:
        assert (other == images).float().mean() < 0.02  # not even the noise
        assert not torch.equal(places, masks)


def test_draws_advance_where_no_number_is_given_and_touch_no_other_random_numbers(digits):
    def equal(one, other) -> bool:
        return all(map(torch.equal, one, other))

    before = torch.get_rng_state()
    assert equal(digits.sample(4), digits.sample(4, draw=0))
    assert equal(digits.sample(4), digits.sample(4, draw=1))
    digits.sample(4, draw=9)
    again = ClutteredDigits(digits.split).sample(4, draw=2)
    for around in (torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta")):
        with around:
            assert equal(digits.sample(4, draw=2), again)
            ClutteredDigits(digits.split)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"^count is {count}; .* 1$"):
            digits.sample(count)
    assert equal(digits.sample(4), again)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_splits_share_no_scan_and_are_all_there_are():
    """Back at 8 x 8 pixels, each of ours is one of scikit-learn's, and has its label."""
    scans, labels = load_digits(return_X_y=True)
    ours = [ClutteredDigits(split, 48, seed=5) for split in SPLITS]
    assert [len(digits.scans) for digits in ours] == [1097, 200, 500]
    for digits in ours:
        assert (digits.labels.bincount(minlength=10) > len(digits.scans) / 20).all()
        small = F.avg_pool2d(digits.scans, 3).flatten(1)
        nearest = torch.cdist(small, torch.tensor(scans / 16, dtype=torch.float32)).argmin(dim=1)
        assert torch.equal(digits.labels, torch.tensor(labels)[nearest])
    assert len(torch.cat([digits.scans.flatten(1) for digits in ours]).unique(dim=0)) == 1797


@pytest.mark.parametrize(("split", "count"), [("train", 1097), ("test", 2)])
def test_fewer_scans_are_the_first_ones_in_the_same_places(split, count):
    few, whole = ClutteredDigits(split, scans=count), ClutteredDigits(split)
    assert torch.equal(few.scans, whole.scans[:count])
    (_, labels, masks), (_, _, places) = few.sample(50, draw=0), whole.sample(50, draw=0)
    assert set(labels.tolist()) <= set(whole.labels[:count].tolist())
    assert torch.equal(masks, places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(split="Train"), "^split 'Train' .* train, validation, test$"),
        *[(dict(size=size), f"^size {size} .* 32$") for size in (33, 30)],
        *[(dict(dim_fragments=share), f"^dim_fragments is {share}; .* 0 to 1$") for share in (-0.1, 1.1)],
        *[(dict(split="test", scans=scans), f"^scans is {scans}; test .* 1 to 500$") for scans in (0, 501)],
    ],
)
def test_what_there_is_not_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClutteredDigits(**arguments)


@pytest.mark.parametrize("dim_fragments", [0, 1])
def test_the_smallest_there_is(dim_fragments):
    digits = ClutteredDigits("test", size=32, scans=1, dim_fragments=dim_fragments)
    images, labels, masks = digits.sample(1, draw=0)
    assert (images.shape, len(labels), masks.sum()) == ((1, 3, 32, 32), 1, 256)
