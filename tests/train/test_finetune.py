"""finetune.py: an adapted copy, a fixed set of pictures, features read once, and CIFAR-10 from a small file of ours."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer
from vit_walkthrough.train import finetune
from vit_walkthrough.train.finetune import Pictures, adapt, cifar10, features


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
        expected |= (
            VisionTransformer(larger.config).to(dtype).position_embedding.state_dict(prefix="position_embedding.")
        )
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


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small file of CIFAR-10's format at a local address: four pictures in each of six files. The label is the
    picture's number, modulo 10, and red, green and blue count up from this number, pixel by pixel."""
    source, firsts = tmp_path / "published.tar.gz", {f"data_batch_{file}": 4 * file - 4 for file in (5, 3, 1, 2, 4)}
    ramp = torch.arange(1024) + torch.arange(3)[:, None]
    with tarfile.open(source, mode="w:gz") as tar:
        for name, first in {"test_batch": 50, **firsts}.items():
            numbers = first + torch.arange(4)[:, None]
            content = bytes(torch.cat([numbers % 10, (numbers + ramp.flatten()) % 256], dim=1).flatten().tolist())
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(finetune, "CIFAR10_ADDRESS", source.as_uri())
    monkeypatch.setattr(finetune, "CIFAR10_SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return source


CACHED = Path("hub", "datasets", "cifar-10-binary.tar.gz")


def test_pictures_and_labels_are_read_in_their_order_from_a_file_that_is_fetched_once(archive, tmp_path):
    images, labels = cifar10("train")
    assert images.dtype == torch.uint8
    assert labels.tolist() == [number % 10 for number in range(20)]
    assert images[7, :, 0, 0].tolist() == [7, 8, 9]  # channels
    assert images[7, 0, :2, :2].tolist() == [[7, 8], [7 + 32, 8 + 32]]  # rows of columns
    archive.unlink()
    assert cifar10("train", 6)[1].tolist() == [0, 1, 2, 3, 4, 5]
    images, labels = cifar10("test", 3)
    assert (labels.tolist(), images[:, 0, 0, 0].tolist()) == ([0, 1, 2], [50, 51, 52])
    assert [path.name for path in (tmp_path / CACHED).parent.iterdir()] == [CACHED.name]


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_file_that_is_not_the_published_one_is_refused_on_the_disk_and_not_kept_after_a_download(
    archive, tmp_path, kept
):
    content, cached = archive.read_bytes(), tmp_path / CACHED
    archive.write_bytes(content[:kept])
    with pytest.raises(ConnectionError, match="cannot be fetched"):
        cifar10()
    assert not list(cached.parent.iterdir())
    archive.unlink()
    with pytest.raises(ConnectionError, match="cannot be fetched"):
        cifar10()
    cached.write_bytes(content[:kept])
    with pytest.raises(ValueError, match="delete it"):
        cifar10()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("request_", "told"), [(("train", 0), "20 pic"), (("train", 21), "20 pic"), (("val",), "'val'")]
)
def test_an_unknown_split_and_a_number_that_is_not_there_are_refused(archive, request_, told):
    with pytest.raises(ValueError, match=told):
        cifar10(*request_)


@pytest.mark.network
def test_cifar_10_itself():
    images, labels = cifar10("train", 5000)
    assert images.shape == (5000, 3, 32, 32)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]  # a frog, two trucks, a deer, an automobile
    assert cifar10("test", 1000)[1][:5].tolist() == [3, 8, 8, 0, 6]
