"""ClutteredDigits: the digit is where the mask says, draws come from their numbers, train and test are apart."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from vit_walkthrough.data import ClutteredDigits, _turned

SPLITS = ["train", "test"]


@pytest.fixture(params=SPLITS)
def digits(request):
    return ClutteredDigits(request.param)


@pytest.fixture
def plain(monkeypatch):
    """No fragments: what is brighter than the ground is the digit."""
    monkeypatch.setattr(ClutteredDigits, "FRAGMENTS", 0)


def equal(one, other) -> bool:
    return all(map(torch.equal, one, other))


def inside(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The squares of the masks: (count, 3, side, side)."""
    side = images.shape[-1] // 2
    return torch.stack([image[:, mask].reshape(3, side, side) for image, mask in zip(images, masks, strict=True)])


# --- what a sample is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 34, 48, 64])
@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_is_images_labels_and_masks(split, size):
    images, labels, masks = ClutteredDigits(split, size).sample(100, draw=0)
    assert images.shape == (100, 3, size, size)
    assert labels.shape == (100,)
    assert masks.shape == (100, size, size)
    assert (images.dtype, labels.dtype, masks.dtype) == (torch.float32, torch.int64, torch.bool)
    assert 0 <= images.min() < 0.1
    assert 0.8 < images.max() <= 1
    assert set(labels.tolist()) == set(range(10))


@pytest.mark.parametrize("size", [32, 34, 48, 64])
def test_every_mask_is_one_square_of_a_quarter_of_the_area(size):
    _, _, masks = ClutteredDigits(size=size).sample(100, draw=0)
    assert (masks.flatten(1).sum(dim=1) == size * size / 4).all()
    for mask in masks:
        rows, cols = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
        assert len(rows) == len(cols) == size // 2
        assert rows[-1] - rows[0] + 1 == cols[-1] - cols[0] + 1 == size // 2


def test_the_digit_may_stand_anywhere_and_each_place_is_as_likely():
    _, _, masks = ClutteredDigits(size=32).sample(4000, draw=0)
    for along in (masks.any(dim=2), masks.any(dim=1)):
        first = along.int().argmax(dim=1)
        counts = torch.bincount(first, minlength=17)
        assert len(counts) == 17
        assert counts.min() > 0.7 * 4000 / 17
        assert counts.max() < 1.3 * 4000 / 17


def test_a_sample_of_one(digits):
    images, labels, masks = digits.sample(1, draw=5)
    assert (images.shape, labels.shape, masks.shape) == ((1, 3, 48, 48), (1,), (1, 48, 48))


# --- the digit is in the mask ------------------------------------------------------------------------------------


def test_the_mask_is_where_the_digit_is_painted():
    """Were every scan full of ink, the square of the mask would have one colour, and nothing else would."""
    digits = ClutteredDigits("test")
    digits.scans.fill_(1)
    images, _, masks = digits.sample(50, draw=0)
    squares = inside(images, masks).flatten(2)
    assert_close(squares, squares[..., :1].expand_as(squares))
    for image, mask in zip(images, masks, strict=True):
        around = torch.nn.functional.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0].bool() & ~mask
        colour = image[:, mask][:, :1]
        assert not (image[:, around] - colour).abs().amax(dim=0).lt(1e-6).all()


def test_the_ink_is_that_of_the_label():
    """Ink only in the scans of threes: the other squares stay ground."""
    digits = ClutteredDigits("test")
    digits.scans[:] = (digits.labels == 3).float()[:, None, None, None]
    images, labels, masks = digits.sample(300, draw=0)
    squares = inside(images, masks).flatten(2)
    full = (squares.amax(dim=-1) - squares.amin(dim=-1)).amax(dim=1) < 1e-6
    assert torch.equal(full, labels == 3)
    assert 10 < int(full.sum()) < 60


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("split", SPLITS)
def test_without_fragments_nothing_outside_the_mask_depends_on_the_scans(split):
    digits, empty = ClutteredDigits(split), ClutteredDigits(split)
    empty.scans.zero_()
    (images, _, masks), (ground, _, same) = digits.sample(50, draw=0), empty.sample(50, draw=0)
    assert torch.equal(masks, same)
    changed = (images != ground).any(dim=1)
    assert not (changed & ~masks).any()
    share = (changed & masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    assert share.min() > 0.15
    assert inside(images - ground, masks).mean() > 0.1  # ink is brighter than the ground


@pytest.mark.usefixtures("plain")
def test_the_handwriting_in_the_mask_is_a_scan_of_the_label():
    """Found again among all 500 by correlation, and so upright, not mirrored and whole."""
    digits = ClutteredDigits("test")
    images, labels, masks = digits.sample(100, draw=0)
    squares = inside(images, masks).mean(dim=1).flatten(1)
    scans = digits.scans.flatten(1)

    def standard(rows):
        rows = rows - rows.mean(dim=1, keepdim=True)
        return rows / rows.norm(dim=1, keepdim=True)

    best, which = (standard(squares) @ standard(scans).T).max(dim=1)
    assert best.min() > 0.9
    assert torch.equal(digits.labels[which], labels)


def test_around_the_digit_there_are_pieces_of_others():
    digits, empty = ClutteredDigits("test"), ClutteredDigits("test")
    empty.scans.zero_()
    (images, _, masks), (ground, _, _) = digits.sample(100, draw=0), empty.sample(100, draw=0)
    cluttered = ((images != ground).any(dim=1) & ~masks).any(dim=(1, 2))
    assert cluttered.float().mean() > 0.9


def test_test_digits_are_drawn_as_they_are_and_training_digits_turned_a_little():
    for split, varied in (("test", False), ("train", True)):
        digits = ClutteredDigits(split)
        digits.FRAGMENTS = 0
        digits.scans[:] = digits.scans[:1].clone()
        images, _, masks = digits.sample(40, draw=0)
        ink = inside(images, masks)
        bounds = ink.amin(dim=(2, 3), keepdim=True), ink.amax(dim=(2, 3), keepdim=True)
        shapes = ((ink - bounds[0]) / (bounds[1] - bounds[0])).mean(dim=1)
        spread = shapes.std(dim=0).max().item()
        assert (spread > 0.25) == varied, (split, spread)


def test_turning_keeps_the_digit_where_it_is():
    digits = ClutteredDigits().scans[:60]
    assert_close(_turned(digits, torch.zeros(60, 4)), digits, rtol=0, atol=1e-5)
    draws = 2 * torch.rand(60, 4) - 1
    turned = _turned(digits, draws)
    assert turned.shape == digits.shape
    assert 0 <= turned.min()
    assert turned.max() <= 1 + 1e-6
    assert torch.nn.functional.cosine_similarity(turned.flatten(1), digits.flatten(1)).min() > 0.6
    side = torch.linspace(-1, 1, 24)
    for axis in (1, 2):
        centres = [(ink[:, 0].sum(dim=3 - axis) * side).sum(1) / ink.sum(dim=(1, 2, 3)) for ink in (digits, turned)]
        assert (centres[0] - centres[1]).abs().max() < 0.1


# --- numbers decide what is drawn --------------------------------------------------------------------------------


def test_the_same_seed_and_draw_give_the_same_images(digits):
    first = digits.sample(20, draw=7)
    digits.sample(5, draw=8)
    assert equal(digits.sample(20, draw=7), first)
    assert equal(ClutteredDigits(digits.split).sample(20, draw=7), first)


@pytest.mark.parametrize("draw", [0, 1])
def test_every_draw_and_seed_gives_other_images_in_other_places(digits, draw):
    images, _, masks = digits.sample(20, draw=draw)
    others = [
        digits.sample(20, draw=draw + 1),
        ClutteredDigits(digits.split, seed=1).sample(20, draw=draw),
        ClutteredDigits("test" if digits.split == "train" else "train").sample(20, draw=draw),
    ]
    for other, _, places in others:
        assert (other == images).float().mean() < 0.02  # not even the noise
        assert not torch.equal(places, masks)


def test_draws_advance_where_no_number_is_given(digits):
    assert equal(digits.sample(4), digits.sample(4, draw=0))
    assert equal(digits.sample(4), digits.sample(4, draw=1))
    digits.sample(4, draw=9)
    assert equal(digits.sample(4), digits.sample(4, draw=2))
    assert not equal(digits.sample(4), digits.sample(4))


def test_the_randomness_of_others_neither_matters_nor_is_touched(digits):
    first = digits.sample(10, draw=3)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = ClutteredDigits(digits.split)
    assert equal(again.sample(10, draw=3), first)
    again.sample(10)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002


# --- train and test ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48])
def test_train_and_test_share_no_scan_and_are_all_there_are(size):
    train, test = ClutteredDigits("train", size), ClutteredDigits("test", size)
    assert (len(train.scans), len(test.scans)) == (1297, 500)
    assert (len(train.labels), len(test.labels)) == (1297, 500)
    scans = torch.cat([train.scans, test.scans]).flatten(1)
    assert scans.shape == (1797, (size // 2) ** 2)
    assert len(scans.unique(dim=0)) == 1797
    _, labels = load_digits(return_X_y=True)
    assert sorted(torch.cat([train.labels, test.labels]).tolist()) == sorted(labels.tolist())
    assert (test.labels.bincount(minlength=10) > 30).all()


def test_every_scan_has_its_own_label():
    """Back at 8 x 8 pixels, each of ours is one of scikit-learn's, and has its label."""
    scans, labels = load_digits(return_X_y=True)
    for split in SPLITS:
        digits = ClutteredDigits(split, 48)
        small = torch.nn.functional.avg_pool2d(digits.scans, 3).flatten(1)
        nearest = torch.cdist(small, torch.tensor(scans / 16, dtype=torch.float32)).argmin(dim=1)
        assert len(nearest.unique()) == len(nearest)
        assert torch.equal(digits.labels, torch.tensor(labels)[nearest])


def test_the_seed_does_not_decide_who_is_in_the_test():
    for split in SPLITS:
        assert torch.equal(ClutteredDigits(split, seed=5).scans, ClutteredDigits(split).scans)


def test_all_ink_of_a_split_is_its_own(digits):
    """The fragments too: with no ink in the split's scans there is none in its images."""
    digits.scans.zero_()
    images, _, _ = digits.sample(200, draw=0)
    assert images.max() < 0.5
    digits.scans.fill_(1)
    assert digits.sample(200, draw=0)[0].max() > 0.8


# --- fewer scans, and augmentation -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "count",
    [1, 2, 500],
)
def test_fewer_scans_are_the_first_ones(split, count):
    few, all_ = ClutteredDigits(split, scans=count), ClutteredDigits(split)
    assert torch.equal(few.scans, all_.scans[:count])
    assert torch.equal(few.labels, all_.labels[:count])
    _, labels, _ = few.sample(50, draw=0)
    assert set(labels.tolist()) <= set(few.labels.tolist())


@pytest.mark.parametrize(("split", "count"), [("train", 1297), ("test", 500)])
def test_as_many_scans_as_there_are_change_nothing(split, count):
    assert equal(ClutteredDigits(split, scans=count).sample(10, draw=0), ClutteredDigits(split).sample(10, draw=0))


def test_the_fragments_are_of_the_few_scans_too():
    """Of two scans one has no ink: then there are fragments without any, and with no ink at all none."""
    images = []
    for inked in ((1, 1), (0, 1), (0, 0)):
        digits = ClutteredDigits("test", scans=2)
        digits.scans[:] = torch.tensor(inked)[:, None, None, None].float()
        shown, _, masks = digits.sample(100, draw=0)
        images.append(torch.where(masks[:, None], 0, shown))
    full, half, empty = images
    assert empty.max() < 0.5  # were one of the other scans seen, it would show
    inked = [(shown != empty).any(dim=1).sum() for shown in (full, half)]
    assert 0.4 < inked[1] / inked[0] < 0.6


@pytest.mark.parametrize("number", [0, -1, 501, 1297])
def test_no_scans_or_more_than_there_are_are_refused(number):
    with pytest.raises(ValueError, match=rf"^scans is {number}; test has 1 to 500$"):
        ClutteredDigits("test", scans=number)


@pytest.mark.parametrize("number", [0, 1298])
def test_the_training_split_has_more(number):
    with pytest.raises(ValueError, match=rf"^scans is {number}; train has 1 to 1,297$"):
        ClutteredDigits(scans=number)


@pytest.mark.parametrize("split", SPLITS)
def test_unless_told_the_scans_of_train_are_turned_and_those_of_test_are_not(split):
    images = {augment: ClutteredDigits(split, augment=augment).sample(8, draw=0) for augment in (None, True, False)}
    assert equal(images[None], images[split == "train"])
    assert not equal(images[None], images[split == "test"])


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("split", SPLITS)
def test_scans_are_turned_only_where_that_is_asked_for(split, augment):
    """From one scan alone: its own shape in every image, or another one in each."""
    digits = ClutteredDigits(split, scans=2, augment=augment)
    digits.scans[1] = digits.scans[0]
    images, _, masks = digits.sample(40, draw=0)
    ink = inside(images, masks)
    bounds = ink.amin(dim=(2, 3), keepdim=True), ink.amax(dim=(2, 3), keepdim=True)
    shapes = ((ink - bounds[0]) / (bounds[1] - bounds[0])).mean(dim=1)
    assert (shapes.std(dim=0).max().item() > 0.25) == augment


@pytest.mark.parametrize("split", SPLITS)
def test_turned_or_not_the_same_digits_lie_in_the_same_places(split):
    turned, upright = (ClutteredDigits(split, augment=augment) for augment in (True, False))
    (_, labels, masks), (_, same, others) = turned.sample(30, draw=2), upright.sample(30, draw=2)
    assert torch.equal(labels, same)
    assert torch.equal(masks, others)
    hues = []
    for digits in (turned, upright):
        digits.scans.fill_(1)
        images, _, masks = digits.sample(30, draw=2)
        hues.append(inside(images, masks)[:, :, 12, 12])
    assert_close(*hues)
    for digits in (turned, upright):
        digits.scans.zero_()
    assert torch.equal(turned.sample(30, draw=2)[0], upright.sample(30, draw=2)[0])


def test_how_many_scans_there_are_does_not_decide_where_the_digit_stands():
    assert torch.equal(ClutteredDigits(scans=100).sample(30, draw=2)[2], ClutteredDigits().sample(30, draw=2)[2])


def test_three_fragments_less_bright_than_the_digit_lie_around_it():
    """White scans: every fragment is a square of 8 x 8 pixels and as bright as 0.4 of its hue."""
    digits, ground = ClutteredDigits("test"), ClutteredDigits("test")
    digits.scans.fill_(1)
    ground.scans.zero_()
    (images, _, masks), (empty, _, _) = digits.sample(200, draw=0), ground.sample(200, draw=0)
    added = torch.where(masks[:, None], 0, images - empty)
    pieces = (added != 0).any(dim=1).flatten(1).sum(dim=1)
    assert pieces.max() == 3 * 8 * 8
    assert 1 < (pieces.float() / 64).mean() < 3  # a part lies under the digit or under another
    assert added.max() <= 3 * 0.4 + 1e-6
    alone = pieces == 3 * 8 * 8
    assert alone.sum() > 10
    assert added[alone].max() == pytest.approx(0.4, abs=1e-3)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("split", ["validation", "Train", "", None])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match=rf"^split {split!r} is unknown; choose train or test$"):
        ClutteredDigits(split)


@pytest.mark.parametrize("size", [49, 33, 31, 30, 8, 0, -48])
def test_a_size_that_is_odd_or_small_is_refused(size):
    with pytest.raises(ValueError, match=rf"^size {size} will not do; choose an even one, at least 32$"):
        ClutteredDigits(size=size)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_1_is_refused_and_takes_no_draw(digits, count):
    with pytest.raises(ValueError, match=rf"^count is {count}; it must be at least 1$"):
        digits.sample(count)
    assert equal(digits.sample(3), digits.sample(3, draw=0))
