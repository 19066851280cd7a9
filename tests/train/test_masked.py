"""masked.py: what is hidden stays hidden, how the autoencoder learns, and what a ViT takes over from it."""

import pytest
import torch
from safetensors.torch import load_file

from notebooks.experiments.arms import EXPERIMENTS
from notebooks.experiments.pretrain import main
from vit_walkthrough import patchify, unpatchify
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train.loop import fit, init_model, seeded
from vit_walkthrough.train.masked import CONFIG, MaskedAutoencoder, init_masked, load_masked, reconstruct
from vit_walkthrough.weights.checkpoint import in_full

DIGITS = ClutteredDigits("train", scans=20)


def answer(model, images):
    with torch.no_grad(), seeded(3):  # the same patches are hidden each time
        return model(images)


def test_nothing_that_is_hidden_is_seen_and_all_that_is_not_is():
    model, images = init_masked(DIGITS), DIGITS.sample(4, draw=0)[0]
    believed, hidden = answer(model, images)
    assert (believed.shape, hidden.sum(dim=1).tolist()) == ((4, 36, 192), [27] * 4)
    for which, changes in ((hidden, False), (~hidden, True)):
        noise = torch.where(which[..., None], torch.rand(4, 36, 192), patchify(images, 8))
        again, same_places = answer(model, unpatchify(noise, 8, 48, 48))
        assert torch.equal(same_places, hidden)
        assert torch.equal(again, believed) != changes


@pytest.mark.parametrize("share", [0.0, 1.0, 0.99, -1.0])
def test_a_share_that_hides_nothing_or_all_is_refused(share):
    with pytest.raises(ValueError, match=rf"a share of {share}, \d+ of 36 patches are seen; choose .* as 0\.75"):
        MaskedAutoencoder(init_model(CONFIG, DIGITS), share)


def test_it_learns_to_fill_in_and_the_same_seed_gives_the_same_losses():
    before = torch.random.manual_seed(2).get_state()
    runs = [reconstruct(init_masked(DIGITS, seed), DIGITS, steps=12, batch_size=16, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]
    assert max(runs[0][-3:]) < runs[0][0] / 2


def test_the_bundled_ones_fill_in_digits_of_scans_that_they_have_not_seen():
    patches = patchify(images := ClutteredDigits("test").sample(100, draw=0)[0], 8)
    guess = patches.mean(dim=1, keepdim=True).expand_as(patches)  # the mean patch of each image
    for seed in (0, 1, 2):
        believed, hidden = answer(load_masked(seed), images)
        assert (believed - patches)[hidden].square().mean() < 0.7 * (guess - patches)[hidden].square().mean()
    with pytest.raises(FileNotFoundError, match="masked_s3"):
        load_masked(3)


def test_an_experiment_begins_with_the_encoder_or_trains_the_head_alone():
    arms, encoder = EXPERIMENTS["without labels"], load_masked(1).encoder.state_dict()
    for name, learns in (("all weights, pretrained", True), ("the head, pretrained", False)):
        model = arms[f"{name}, 100 scans"].begin(init_model(CONFIG, DIGITS, 1), 1)
        body = [(part, encoder[name]) for name, part in model.named_parameters() if "head" not in name]
        assert all(torch.equal(*pair) and pair[0].requires_grad == learns for pair in body)
    fit(model, DIGITS, steps=2, batch_size=8, progress=False)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, encoder[name])}
    assert changed == {"head.logits.weight", "head.logits.bias"}


def test_the_command_writes_what_load_reads(tmp_path, capsys):
    main(["--seed", "5", "--steps", "1", "--output", str(tmp_path / "masked.safetensors")])
    init_masked(DIGITS).load_state_dict(in_full(load_file(tmp_path / "masked.safetensors")))
    assert "mean squared error" in capsys.readouterr().out
