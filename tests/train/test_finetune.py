"""finetune.py: an adapted copy, a fixed set of pictures, and features read once."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer
from vit_walkthrough.train.finetune import Pictures, adapt, features


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_copy_for_another_size_resamples_the_positions_and_keeps_the_rest(config, randomize, positions, dtype):
    model = randomize(VisionTransformer(replace(config, positions=positions))).to(dtype).requires_grad_(False)
    before = torch.get_rng_state()
    larger, same = adapt(model, image_size=(20, 36)), adapt(model)
    assert torch.equal(torch.get_rng_state(), before)
    expected = dict(model.state_dict())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in same.state_dict().items())
    if positions == "learned":
        numbers = resample_positions(model.position_embedding.positions.float(), 5, 9, grid=(3, 5)).to(dtype)
        expected["position_embedding.positions"] = numbers
    if positions == "sincos":
        computed = VisionTransformer(larger.config).to(dtype).position_embedding
        expected |= computed.state_dict(prefix="position_embedding.")
    assert larger.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in larger.state_dict().items())
    assert larger(torch.rand(1, 3, 20, 36, dtype=dtype)).dtype == dtype
    assert all(parameter.requires_grad for parameter in larger.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("logits", [nn.Identity(), nn.Linear(32, 5)])
def test_a_new_head_starts_at_zero_and_takes_the_place_of_any_other(model, images, logits):
    model.head = ClassificationHead(32, 5, hidden=16)
    model.head.logits = logits
    assert torch.equal(adapt(model, classes=7)(images), torch.zeros(2, 7))
    assert isinstance(adapt(model).head.hidden, nn.Sequential)
    for options, message in (({"image_size": 13}, "does not divide"), ({"classes": 0}, "classes")):
        with pytest.raises(ValueError, match=message):
            adapt(model, **options)


@pytest.mark.parametrize(("count", "draws", "times"), [(2, 5, 1), (3, 10, 3), (25, 2, 5), (10, 1, 1)])
def test_every_picture_comes_with_its_label_before_any_comes_again(count, draws, times):
    pictures = Pictures(torch.arange(10), torch.arange(10) % 3, lambda images: 2 * images)
    drawn = [pictures.sample(count, draw) for draw in range(draws)]
    images, labels = (torch.cat(part) for part in list(zip(*drawn, strict=True))[:2])
    assert (images // 2).bincount().tolist() == [times] * 10
    assert torch.equal(labels, images // 2 % 3)
    other = Pictures(torch.arange(10), torch.arange(10), seed=1)
    assert len({str(each.sample(10, draw)[1]) for each in (pictures, other) for draw in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("count", "labels", "asked", "told"), [(2, 3, 1, "2 p.* 3 l"), (0, 0, 1, "0 p"), (1, 1, 0, "is 0")]
)
def test_pictures_that_cannot_be_are_refused(count, labels, asked, told):
    with pytest.raises(ValueError, match=told):
        Pictures(torch.zeros(count, 1), torch.zeros(labels, dtype=torch.long)).sample(asked)


@pytest.mark.parametrize("hidden", [None, 16])
def test_features_are_what_the_head_reads(model, capsys, hidden):
    model.head = ClassificationHead(32, 5, hidden=hidden)
    model.train()
    data = Pictures(torch.rand(7, 3, 12, 20), torch.arange(7), lambda images: images / 2, seed=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = features(model, data, batch_size=3, progress=True)
    assert "100%" in capsys.readouterr().out
    assert torch.equal(read.labels, data.labels)
    assert read.seed == 3
    torch.testing.assert_close(model.head(read.images), model(data.images / 2))
    with pytest.raises(ValueError, match="config says"):
        features(model, Pictures(torch.rand(2, 3, 8, 8), torch.arange(2)))
    assert model.training
    assert not model.head._forward_pre_hooks
