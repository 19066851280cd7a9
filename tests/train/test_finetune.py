"""Fine-tuning: an adapted copy, a fixed set of pictures, features read once, and CIFAR-10 from a small file of ours."""

import hashlib
import io
import tarfile
from dataclasses import replace

import pytest
import torch
from torch import nn

from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer
from vit_walkthrough.train import finetune
from vit_walkthrough.train.finetune import CIFAR10, RECORD, Pictures, adapt, cifar10, features
from vit_walkthrough.train.loop import evaluate, fit

# --- adapt -------------------------------------------------------------------------------------------------------


def test_a_copy_says_the_same(model, images):
    copied = adapt(model)
    assert torch.equal(copied(images), model(images))
    with torch.no_grad():
        copied.head.logits.bias += 1
    assert not torch.equal(copied(images), model(images))


def test_another_size_resamples_the_positions_and_keeps_the_rest(model):
    larger = adapt(model, image_size=(20, 36))
    assert (larger.config.rows, larger.config.cols) == (5, 9)
    expected = resample_positions(model.position_embedding.positions, 5, 9, grid=(3, 5))
    assert torch.equal(larger.position_embedding.positions, expected)
    assert torch.equal(larger.head.logits.weight, model.head.logits.weight)
    assert larger(torch.rand(1, 3, 20, 36)).shape == (1, 5)
    assert model.position_embedding.positions.shape == (1, 16, 32)  # the original is as it was


def test_the_mode_is_handed_on(model):
    expected = resample_positions(model.position_embedding.positions, 5, 9, "bilinear", (3, 5))
    assert torch.equal(adapt(model, image_size=(20, 36), mode="bilinear").position_embedding.positions, expected)


@pytest.mark.parametrize("positions", ["sincos", "none"])
def test_other_kinds_of_positions(config, positions):
    larger = adapt(VisionTransformer(replace(config, positions=positions)), image_size=(20, 36))
    fresh = VisionTransformer(replace(config, positions=positions, image_size=(20, 36)))
    assert larger.state_dict().keys() == fresh.state_dict().keys()
    if positions == "sincos":
        assert torch.equal(larger.position_embedding.positions, fresh.position_embedding.positions)
    assert larger(torch.rand(1, 3, 20, 36)).shape == (1, 5)


def test_a_new_head_starts_at_zero(model, images):
    adapted = adapt(model, classes=7)
    assert adapted.config.classes == 7
    assert (adapted(images) == torch.zeros(2, 7)).all()
    assert torch.equal(adapted.blocks[1].mlp.expand.weight, model.blocks[1].mlp.expand.weight)


def test_a_new_head_takes_the_place_of_none_and_of_a_hidden_layer(model, images):
    model.head.logits = nn.Identity()
    assert adapt(model)(images).shape == (2, 32)
    assert adapt(model, classes=3)(images).shape == (2, 3)
    model.head = ClassificationHead(32, 5, hidden=16)
    assert isinstance(adapt(model).head.hidden, nn.Sequential)
    assert isinstance(adapt(model, classes=3).head.hidden, nn.Identity)


def test_all_of_a_copy_learns(model):
    model.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in adapt(model, image_size=(20, 36), classes=2).parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_a_copy_has_the_precision_of_the_model(config, images, dtype, positions):
    model = VisionTransformer(replace(config, positions=positions)).to(dtype)
    adapted = adapt(model, image_size=(20, 36), classes=7)
    assert {tensor.dtype for tensor in adapted.state_dict().values()} == {dtype}
    assert adapted(torch.rand(1, 3, 20, 36, dtype=dtype)).dtype == dtype


def test_adapting_draws_no_random_number(model):
    before = torch.get_rng_state()
    adapt(model, image_size=(20, 36), classes=7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("options", "message"), [({"image_size": 13}, "does not divide"), ({"classes": 0}, "classes")])
def test_what_cannot_be(model, options, message):
    with pytest.raises(ValueError, match=message):
        adapt(model, **options)


# --- Pictures ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures():
    return Pictures(torch.arange(10), torch.arange(10) % 3)


def test_every_picture_comes_before_any_comes_again(pictures):
    for start in (0, 5):
        drawn = torch.cat([pictures.sample(2, draw=start + draw)[0] for draw in range(5)])
        assert sorted(drawn.tolist()) == list(range(10))
    assert not torch.equal(pictures.sample(10, draw=0)[0], pictures.sample(10, draw=1)[0])


def test_a_batch_may_cross_the_end_or_be_larger_than_the_set(pictures):
    drawn = torch.cat([pictures.sample(3, draw=draw)[0] for draw in range(10)])
    assert drawn.bincount().tolist() == [3] * 10
    assert pictures.sample(25, draw=0)[0].bincount().min() == 2


def test_labels_stay_with_their_pictures(pictures):
    images, labels, masks = pictures.sample(7)
    assert torch.equal(labels, images % 3)
    assert masks is None


def test_draws_are_repeatable_and_counted(pictures):
    first, second = pictures.sample(4)[0], pictures.sample(4)[0]
    assert torch.equal(first, pictures.sample(4, draw=0)[0])
    assert torch.equal(second, pictures.sample(4, draw=1)[0])
    other = Pictures(torch.arange(10), torch.zeros(10, dtype=torch.long), seed=1)
    assert not torch.equal(other.sample(10, draw=0)[0], pictures.sample(10, draw=0)[0])


def test_what_is_prepared_is_only_the_batch():
    seen = []

    def prepare(images):
        seen.append(len(images))
        return images / 255

    data = Pictures(torch.full((9, 3, 2, 2), 255, dtype=torch.uint8), torch.zeros(9, dtype=torch.long), prepare)
    assert (data.sample(4)[0] == 1).all()
    assert seen == [4]


def test_pictures_that_cannot_be():
    with pytest.raises(ValueError, match="2 pictures and 3 labels"):
        Pictures(torch.zeros(2, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="0 pictures and 0 labels"):
        Pictures(torch.zeros(0, 1), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="count is 0"):
        Pictures(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)).sample(0)


# --- features ----------------------------------------------------------------------------------------------------


def test_features_are_what_the_head_reads(model):
    data = Pictures(torch.rand(7, 3, 12, 20), torch.arange(7))
    read = features(model, data, batch_size=3)
    assert read.images.shape == (7, 32)
    assert torch.equal(read.labels, data.labels)
    torch.testing.assert_close(model.head(read.images), model(data.images))
    assert not model.head._forward_pre_hooks


def test_features_before_a_hidden_layer_and_after_an_error(model):
    model.head = ClassificationHead(32, 5, hidden=16)
    model.train()
    assert features(model, Pictures(torch.rand(2, 3, 12, 20), torch.arange(2))).images.shape == (2, 32)
    with pytest.raises(ValueError, match="config says"):
        features(model, Pictures(torch.rand(2, 3, 8, 8), torch.arange(2)))
    assert model.training
    assert not model.head._forward_pre_hooks


def test_progress_is_a_bar_on_standard_output(model, capsys):
    features(model, Pictures(torch.rand(2, 3, 12, 20), torch.arange(2)), progress=True)
    out, err = capsys.readouterr()
    assert "100%" in out
    assert not err


def test_a_head_on_features_is_the_frozen_model_with_a_new_head(model):
    data = Pictures(torch.rand(60, 3, 12, 20), torch.arange(60) % 2)
    data.images[1::2] += 1
    head = fit(ClassificationHead(32, 2), features(model, data), steps=60, learning_rate=0.01, progress=False).model
    whole = adapt(model, classes=2)
    whole.head.load_state_dict(head.state_dict())
    assert evaluate(whole, data, 60) == 1
    torch.testing.assert_close(whole(data.images), head(features(model, data).images))


def test_a_tiny_vit_learns_from_a_fixed_set():
    config = ViTConfig(8, 4, dim=16, depth=1, heads=2, hidden=32, classes=2)
    images = torch.rand(40, 3, 8, 8) * 0.5
    images[1::2, 0] += 0.5
    data = Pictures(images, torch.arange(40) % 2)
    assert evaluate(fit(config, data, steps=60, batch_size=20, progress=False).model, data, 40) > 0.9


# --- CIFAR-10 ----------------------------------------------------------------------------------------------------


def packed(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def records(first, count):
    """Pictures whose label is their number, and whose red, green and blue count up from it."""
    made = b""
    for number in range(first, first + count):
        made += bytes([number % 10]) + b"".join(
            bytes((number + channel + pixel) % 256 for pixel in range(1024)) for channel in range(3)
        )
    return made


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small file of CIFAR-10's format at a local address: four pictures in each of six files."""
    names = ["test_batch", *(f"data_batch_{number}" for number in (5, 3, 1, 2, 4))]  # in no good order
    firsts = {"test_batch": 50} | {f"data_batch_{number}": 4 * (number - 1) for number in range(1, 6)}
    content = packed({name: records(firsts[name], 4) for name in names})
    source = tmp_path / "published.tar.gz"
    source.write_bytes(content)
    monkeypatch.setattr(finetune, "CIFAR10_ADDRESS", source.as_uri())
    monkeypatch.setattr(finetune, "CIFAR10_SHA256", hashlib.sha256(content).hexdigest())
    return source


def test_pictures_and_labels_in_their_order(archive, tmp_path):
    images, labels = cifar10("train", folder=tmp_path / "cache")
    assert images.shape == (20, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [number % 10 for number in range(20)]
    assert images[7, :, 0, 0].tolist() == [7, 8, 9]  # channels
    assert images[7, 0, 0, :3].tolist() == [7, 8, 9]  # then columns
    assert images[7, 0, 1, 0] == 7 + 32  # then rows
    images, labels = cifar10("test", 3, folder=tmp_path / "cache")
    assert labels.tolist() == [0, 1, 2]
    assert images[:, 0, 0, 0].tolist() == [50, 51, 52]


def test_the_first_so_many_may_cross_a_file(archive, tmp_path):
    assert cifar10("train", 6, folder=tmp_path)[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert cifar10("train", 4, folder=tmp_path)[1].tolist() == [0, 1, 2, 3]


def test_it_is_fetched_once_and_kept_beside_torch_s_downloads(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cifar10("test")
    archive.unlink()
    assert len(cifar10("test")[0]) == 4
    assert [path.name for path in (tmp_path / "hub" / "datasets").iterdir()] == ["cifar-10-binary.tar.gz"]


def test_without_a_network(archive, tmp_path):
    archive.unlink()
    with pytest.raises(ConnectionError, match="cannot be fetched"):
        cifar10(folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_another_file_at_the_address_is_thrown_away(archive, tmp_path):
    archive.write_bytes(b"moved")
    with pytest.raises(ValueError, match="did not arrive as it was published"):
        cifar10(folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_truncated_file_on_the_disk_is_refused(archive, tmp_path, kept):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(ValueError, match="broken or another file; delete it"):
        cifar10(folder=tmp_path)


@pytest.mark.parametrize("count", [0, -1, 21])
def test_a_number_that_is_not_there(archive, tmp_path, count):
    with pytest.raises(ValueError, match="train has 1 to"):
        cifar10("train", count, folder=tmp_path)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="split 'val' is unknown"):
        cifar10("val", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_published():
    assert finetune.CIFAR10_ADDRESS.startswith("https://")
    assert len(finetune.CIFAR10_SHA256) == 64
    assert len(CIFAR10) == 10
    assert RECORD == 3073


@pytest.mark.network
def test_cifar_10_itself():
    images, labels = cifar10("train", 5000)
    assert images.shape == (5000, 3, 32, 32)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]  # a frog, two trucks, a deer, an automobile
    assert cifar10("test", 1000)[1][:5].tolist() == [3, 8, 8, 0, 6]
