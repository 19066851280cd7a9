"""successors.py and masked.py: what each change leaves as it was, what it may depend on, and what it refuses; what is
hidden stays hidden, how the autoencoder learns, and what a ViT takes over from it."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from notebooks.experiments.arms import EXPERIMENTS
from notebooks.experiments.pretrain import main
from vit_walkthrough import VisionTransformer, patchify, unpatchify
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.train import successors
from vit_walkthrough.train.finetune import adapt
from vit_walkthrough.train.loop import fit, init_model, seeded
from vit_walkthrough.train.masked import CONFIG, MaskedAutoencoder, init_masked, load_masked, reconstruct
from vit_walkthrough.train.successors import RelativeBias, Rotary, TwoHeads, Windows, reach
from vit_walkthrough.weights.checkpoint import in_full

PLACES = torch.cartesian_prod(torch.arange(4), torch.arange(6))  # of 24 patches
SCORES = torch.randn(2, 3, 25, 25, generator=torch.Generator().manual_seed(0))


class Blind(nn.Module):
    def forward(self, weights):  # of 16 tokens and 3 registers
        return F.pad(weights[..., :16] / weights[..., :16].sum(dim=-1, keepdim=True), (0, 3))


@torch.no_grad()
def test_registers_are_read_by_attention_alone_and_have_no_place(model, images):
    longer, before = successors.registers(copy.deepcopy(model), 3), model(images)
    tokens = longer.position_embedding[1].tokens.normal_()
    with_registers, _ = longer(images), tokens.copy_(tokens.flip(1))
    assert not torch.allclose(with_registers, before, atol=1e-2)
    assert_close(longer(images), with_registers)
    assert_close(successors.in_attention(longer, lambda block: Blind(), "weights")(images), before)


@torch.no_grad()
def test_turned_scores_depend_on_the_offset_alone_and_a_relative_bias_is_added_to_the_scores():
    turn, bias, added, found = Rotary(4, 6, 8), RelativeBias(4, 6, 3), torch.zeros(3, 25, 25), {}
    queries, keys = (turn(each.expand(1, 3, 25, 8))[0] for each in torch.randn(2, 3, 1, 8))
    scores, table = (queries @ keys.mT)[:, 1:, 1:], bias.table.normal_()
    for one, other in torch.cartesian_prod(torch.arange(24), torch.arange(24)).tolist():
        down, right = (PLACES[one] - PLACES[other]).tolist()
        assert_close(scores[:, one, other], found.setdefault((down, right), scores[:, one, other]))
        added[:, 1 + one, 1 + other] = table[:, down + 3, right + 5]
    assert len({round(score[0].item(), 3) for score in found.values()}) == 77  # 7 * 11 offsets, each with its own
    assert_close(queries.norm(dim=-1), queries[:, :1].norm(dim=-1).expand(3, 25))
    assert torch.equal(turn.turn[0], torch.ones(4))  # the class token stays as it is
    assert_close(Rotary(7, 11, 8, stretch=0.5).turn[1:].view(7, 11, 4)[::2, ::2], turn.turn[1:].view(4, 6, 4))
    assert_close(bias(SCORES.softmax(dim=-1)), (SCORES + added).softmax(dim=-1))


@torch.no_grad()
def test_positions_of_another_grid(config, images, randomize):
    model, larger = randomize(VisionTransformer(replace(config, positions="none"))), torch.rand(2, 3, 20, 36)
    assert_close(successors.relative(copy.deepcopy(model))(images), model(images))  # it starts at zero
    for change in (successors.rotary, successors.relative):
        trained = randomize(change(copy.deepcopy(model)))
        assert torch.equal(change(copy.deepcopy(trained)).eval()(images), trained(images))
        adapted = change(adapt(trained, image_size=(20, 36))).eval()
        assert adapted(larger).isfinite().all()
    old, new = (one.blocks[1].attention.weights.table for one in (trained, adapted))
    assert_close(new[:, ::4, ::8], old[:, ::2, ::4])  # 9 x 17 offsets instead of 5 x 9, from corner to corner
    assert sum(isinstance(one, Rotary) for one in successors.rotary(model).modules()) == 4  # a record names each


def test_windows_shut_off_all_but_their_own_and_shifted_ones_join_them():
    still, shifted = Windows(4, 6, 2).together, Windows(4, 6, 2, shift=1).together
    assert_close(Windows(4, 6, 2)(SCORES.softmax(-1)), SCORES.masked_fill(~still, -torch.inf).softmax(-1))
    assert [mask.sum().item() for mask in (still, shifted)] == [1 + 6 * 16, 1 + (1 + 4 + 1) * (1 + 4 + 4 + 1)]
    assert still[8].nonzero()[:, 0].tolist() == [1, 2, 7, 8]  # patch 7, in row 1 and column 1
    assert shifted[8].nonzero()[:, 0].tolist() == [8, 9, 14, 15]
    assert [reach(([still, shifted] * 3)[:k])[:, 1].sum().item() for k in range(1, 7)] == [4, 9, 16, 20, 24, 24]
    for side in (3, 4, 0, -2):
        with pytest.raises(ValueError, match=f"windows of {side} x {side} patches .* 4 x 6; choose a side of 1, 2$"):
            Windows(4, 6, side)
    for head_dim, fits in ((7, 4), (18, 16), (2, 4)):
        with pytest.raises(ValueError, match=f"head_dim {head_dim} is not a multiple of 4.*such as {fits}$"):
            Rotary(4, 6, head_dim)


@torch.no_grad()
def test_two_heads_and_attention_pooling(model):
    heads, read = TwoHeads(32, 5), torch.randn(2, 2, 32)
    one, other = (nn.init.normal_(head.logits.weight) @ read[:, k, :, None] for k, head in enumerate(heads.heads))
    assert_close(heads.train()(read), torch.cat([one, other])[..., 0])
    assert_close(heads.eval()(read).exp(), (one.softmax(dim=1) + other.softmax(dim=1))[..., 0] / 2)
    tokens, pooled = torch.randn(2, 16, 32), successors.attention_pooling(model)
    picked = F.scaled_dot_product_attention(pooled.query.expand(2, -1, -1), pooled.keys(tokens[:, 1:]), tokens[:, 1:])
    assert_close(pooled.pool(tokens), picked[:, 0])


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
    for share in (0.0, 1.0, 0.99, -1.0):
        with pytest.raises(ValueError, match=rf"a share of {share}, \d+ of 36 patches are seen; choose .* as 0\.75"):
            MaskedAutoencoder(model.encoder, share)


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
