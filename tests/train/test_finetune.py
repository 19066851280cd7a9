"""finetune.py: an adapted copy, a fixed set of pictures, a folder of them, and features read once."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from vit_walkthrough import ClassificationHead, VisionTransformer, resample_positions
from vit_walkthrough.train.finetune import LabelledFolder, Pictures, adapt, class_table, features
from vit_walkthrough.train.loop import evaluate, fit


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_copy_for_another_size_resamples_the_positions_and_keeps_the_rest(config, randomize, positions, dtype):
    model = randomize(VisionTransformer(replace(config, positions=positions))).to(dtype).requires_grad_(False)
    before, expected = torch.get_rng_state(), dict(model.state_dict())
    larger, same = adapt(model, image_size=(20, 36)), adapt(model)
    assert torch.equal(torch.get_rng_state(), before)
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
    for given, tags, of, told in ((2, 3, 1, "2 p.* 3 l"), (0, 0, 1, "0 p"), (1, 1, 0, "is 0")):
        with pytest.raises(ValueError, match=told):
            Pictures(torch.zeros(given, 1), torch.zeros(tags, dtype=torch.long)).sample(of)


@pytest.mark.parametrize("hidden", [None, 16])
def test_features_are_what_the_head_reads(model, hidden):
    model.head = ClassificationHead(32, 5, hidden=hidden)
    model.train()
    data = Pictures(torch.rand(7, 3, 12, 20), torch.arange(7), lambda images: images / 2, seed=3)
    read = features(model, data, batch_size=3)
    assert torch.equal(read.labels, data.labels)
    assert read.seed == 3
    torch.testing.assert_close(model.head(read.images), model(data.images / 2))
    with pytest.raises(ValueError, match="config says"):
        features(model, Pictures(torch.rand(2, 3, 8, 8), torch.arange(2)))
    assert model.training


@pytest.fixture
def folder(tmp_path):
    """A folder of three classes, each of one colour, and what does not belong to them."""
    for number, (name, count) in enumerate({"cyan": 3, "blue": 5, "dark red": 2}.items()):
        (tmp_path / name).mkdir()
        for place in range(count):
            colour = [0, 0, 0]
            colour[number] = 200 + place
            Image.new("RGB", (30 + place, 20), tuple(colour)).save(tmp_path / name / f"{place}.png")
    for hidden in (".cache", "blue/.cache"):
        (tmp_path / hidden).mkdir()
    (tmp_path / "cyan/.DS_Store").write_text("hidden")
    (tmp_path / "notes.txt").write_text("not in a class")
    return tmp_path


def test_a_folder_is_read_class_by_class_and_taught_to_an_adapted_model(folder, model):
    data = LabelledFolder(folder, (12, 20), lambda images: images - 0.5)
    assert (data.names, data.labels.tolist()) == (["blue", "cyan", "dark red"], [0] * 5 + [1] * 3 + [2] * 2)
    assert data.images.shape == (10, 3, 12, 20)
    images, labels, _ = data.sample(10, draw=0)
    for image, label in zip(images, labels.tolist(), strict=True):
        assert (image.mean(dim=(1, 2)) > 0.2).nonzero().tolist() == [[(1, 0, 2)[label]]]
        assert image.min() == -0.5
    learned = fit(adapt(model, classes=3), data, steps=60, batch_size=10, progress=False).model
    assert evaluate(learned, data, 10) == 1
    constant = adapt(model, classes=3).eval()
    constant.head.logits.bias.data[1] = 1.0  # it always says class 1
    for named, right in ((learned, (5, 3, 2, 10)), (constant, (0, 3, 0, 3))):
        rows = zip(("blue", "cyan", "dark red", "all"), (5, 3, 2, 10), right, strict=True)
        told = [line.rsplit(maxsplit=2) for line in class_table(named, data, batch_size=4).splitlines()]
        assert told == [["class", "pictures", "right"], *[[name, f"{count}", f"{own}"] for name, count, own in rows]]
    with pytest.raises(ValueError, match="config says"):
        fit(learned, LabelledFolder(folder, 24), steps=1, progress=False)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: [(folder / name).rename(folder / f".{name}") for name in ("cyan", "blue")], "has 1 sub-folder"),
        (lambda folder: (folder / "empty").mkdir(), "class empty has no picture"),
        (lambda folder: (folder / "blue/half.png").write_bytes((folder / "blue/0.png").read_bytes()[:40]), "blue/half"),
        (lambda folder: (folder / "blue/words.txt").write_text("words"), "blue/words.txt is no picture"),
        (lambda folder: Image.new("RGB", (1, 1)).save(folder / "cyan/dot.png"), "cyan/dot.png .* 1 x 1"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_says_what_is_wrong_with_it(folder, spoil, told):
    spoil(folder)
    with pytest.raises(ValueError, match=told):
        LabelledFolder(folder, 24)
