"""ClutteredDigits: the digit is where the mask says, draws come from their numbers, train and test are apart; and
PlantedCue: a cue beside every digit, whose hue names a class, as often the right one as `share` says."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.testing import assert_close

from vit_walkthrough import data
from vit_walkthrough.data import SPLITS, ClutteredDigits, PlantedCue, _turned, plant


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


def test_every_draw_seed_and_split_gives_other_images_in_other_places():
    drawn = [
        ClutteredDigits(split, seed=seed).sample(20, draw) for split in SPLITS for seed in (0, 1) for draw in (0, 1)
    ]
    for (images, _, masks), (other, _, places) in combinations(drawn, 2):
        assert (other == images).float().mean() < 0.02  # not even the noise
        assert not torch.equal(places, masks)


def equal(one, other) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("split", SPLITS)
def test_draws_advance_where_no_number_is_given_and_touch_no_other_random_numbers(split):
    digits, before = ClutteredDigits(split), torch.get_rng_state()
    assert equal(digits.sample(4), digits.sample(4, draw=0))
    assert equal(digits.sample(4), digits.sample(4, draw=1))
    digits.sample(4, draw=9)
    again = ClutteredDigits(split).sample(4, draw=2)
    for around in (torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta")):
        with around:
            assert equal(ClutteredDigits(split).sample(4, draw=2), again)
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"^count is {count}; .* 1$"):
            digits.sample(count)
    assert equal(digits.sample(4), again)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_splits_share_no_scan_and_are_all_there_are():  # back at 8 x 8 pixels, each is one of scikit-learn's
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


def test_what_there_is_not_is_refused():
    wrong = {"^split 'Train' .* train, validation, test$": dict(split="Train")}
    wrong |= {f"^size {size} .* 32$": dict(size=size) for size in (33, 30)}
    wrong |= {f"^dim_fragments is {share}; .* 0 to 1$": dict(dim_fragments=share) for share in (-0.1, 1.1)}
    wrong |= {f"^scans is {scans}; test .* 1 to 500$": dict(split="test", scans=scans) for scans in (0, 501)}
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            ClutteredDigits(**arguments)


@pytest.mark.parametrize("dim_fragments", [0, 1])
def test_the_smallest_there_is(dim_fragments):
    digits = ClutteredDigits("test", size=32, scans=1, dim_fragments=dim_fragments)
    images, labels, masks = digits.sample(1, draw=0)
    assert (images.shape, len(labels), masks.sum()) == ((1, 3, 32, 32), 1, 256)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_only_one_patch_beside_the_digit_is_changed(split):
    images, labels, masks, _, places = PlantedCue(split, seed=3).planted(200, draw=4)
    before, expected, squares = ClutteredDigits(split, seed=3).sample(200, draw=4)
    assert torch.equal(labels, expected)
    assert torch.equal(masks, squares)
    changed = (images != before).any(dim=1)
    assert not (changed & masks).any()
    for image, place in enumerate(places.tolist()):
        row, col = divmod(place, 6)
        patch = (image, slice(8 * row, 8 * row + 8), slice(8 * col, 8 * col + 8))
        assert changed[image].sum() == changed[patch].sum() == 64
        assert images[image, :, patch[1], patch[2]].flatten(1).unique(dim=1).shape[1] == 1  # one colour
    assert len(places.unique()) > 30  # anywhere


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_the_cue_is_as_honest_as_it_should_be(share):
    _, labels, _, named, _ = PlantedCue("test", share=share).planted(500, draw=0)
    assert (named == labels).float().mean().item() == pytest.approx(share, abs=0.04)
    assert set(named.tolist()) == set(range(10))


def test_a_hue_names_a_class_and_is_dim():
    images, masks = torch.zeros(10, 3, 48, 48), torch.zeros(10, 48, 48).bool()
    colours = plant(images, masks, torch.arange(10), torch.arange(10)).amax(dim=(2, 3))
    assert 0.4 < colours.amax(dim=1).min() <= colours.max() <= 0.5  # half as bright as a digit
    assert torch.cdist(colours, colours).add(torch.eye(10)).min() > 0.05
    assert colours[[0, 3, 7]].argmax(dim=1).tolist() == [0, 1, 2]  # red, green, blue


def test_the_images_are_those_that_the_bundled_models_learned_from_whatever_the_default_device_is():
    default, trained = PlantedCue(), PlantedCue("train", share=0.95, seed=0)
    with torch.device("meta"):
        drawn = default.sample(5, draw=3)
    assert equal(drawn, trained.planted(5, draw=3))
    _, labels, _, named, places = PlantedCue("test", share=0.5, seed=1).planted(8, draw=2)
    assert labels.tolist() == [4, 2, 5, 5, 9, 9, 7, 6]
    assert named.tolist() == [0, 5, 2, 1, 5, 9, 7, 6]
    assert places.tolist() == [31, 12, 31, 1, 33, 6, 28, 28]


def test_draws_of_cues_come_from_their_numbers():
    cued, again, state = PlantedCue("train"), PlantedCue("train"), torch.random.get_rng_state()
    assert equal(cued.sample(8), again.sample(8, draw=0))
    assert torch.equal(cued.planted(8)[4], again.planted(8, draw=1)[4])
    assert not torch.equal(cued.planted(8, draw=2)[4], cued.planted(8, draw=3)[4])
    assert torch.equal(state, torch.random.get_rng_state())


def test_bad_shares_and_a_cue_on_the_digit_are_refused():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            PlantedCue("test", share=share)
    images, labels, masks = ClutteredDigits("test").sample(2, draw=0)
    on_digit = masks[1].float().reshape(6, 8, 6, 8).mean(dim=(1, 3)).argmax()
    free = (~masks[0]).float().reshape(6, 8, 6, 8).mean(dim=(1, 3)).argmax()
    with pytest.raises(ValueError, match=f"image 1, a cue in patch {on_digit} covers the digit"):
        plant(images, masks, labels, torch.stack([free, on_digit]))
