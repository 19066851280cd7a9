"""PlantedCue: a cue beside every digit, whose hue names a class, as often the right one as `share` says."""

import pytest
import torch

from vit_walkthrough.data import ClutteredDigits, PlantedCue, plant


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
    colours = plant(torch.zeros(10, 3, 48, 48), torch.zeros(10, 48, 48).bool(), torch.arange(10), torch.arange(10))
    colours = colours.amax(dim=(2, 3))
    assert 0.4 < colours.amax(dim=1).min() <= colours.max() <= 0.5  # half as bright as a digit
    assert torch.cdist(colours, colours).add(torch.eye(10)).min() > 0.05
    assert colours[[0, 3, 7]].argmax(dim=1).tolist() == [0, 1, 2]  # red, green, blue


def test_the_images_are_those_that_the_bundled_models_learned_from_whatever_the_default_device_is():
    default, trained = PlantedCue(), PlantedCue("train", share=0.95, seed=0)
    with torch.device("meta"):
        images, labels, masks = default.sample(5, draw=3)
    assert all(map(torch.equal, (images, labels, masks), trained.planted(5, draw=3)))
    _, labels, _, named, places = PlantedCue("test", share=0.5, seed=1).planted(8, draw=2)
    assert labels.tolist() == [4, 2, 5, 5, 9, 9, 7, 6]
    assert named.tolist() == [0, 5, 2, 1, 5, 9, 7, 6]
    assert places.tolist() == [31, 12, 31, 1, 33, 6, 28, 28]


def test_draws_come_from_their_numbers():
    cued, again, state = PlantedCue("train"), PlantedCue("train"), torch.random.get_rng_state()
    assert all(map(torch.equal, cued.sample(8), again.sample(8, draw=0)))
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
