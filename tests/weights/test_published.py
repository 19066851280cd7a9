"""published.py: names, folders, downloads, how pictures are prepared, what must be refused. The reference is timm."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from vit_walkthrough.data import photo
from vit_walkthrough.weights import Preprocessing, load_pretrained, published

HALF = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.5, 2.0), (12, 20))


@pytest.fixture(scope="module")
def repository(tmp_path_factory, peer):
    timm, folder = peer("timm.models"), tmp_path_factory.mktemp("repository")
    theirs = timm.create_model("test_vit", img_size=32, num_classes=5)
    timm.save_for_hf(theirs, folder, safe_serialization="both")
    return folder, theirs.eval()


def copy_of(repository, tmp_path, **changes) -> Path:
    """timm's folder once more, with changes in its config.json."""
    shutil.copytree(repository[0], copy := tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return copy


def test_images_are_normalised_and_those_of_another_size_type_or_range_refused():
    images = torch.rand(2, 3, 12, 20)
    assert_close(HALF(images), torch.stack([images[:, 0] * 2 - 1, images[:, 1] * 2 - 0.5, images[:, 2] / 2], 1))
    assert torch.equal(HALF(images[0]), HALF(images)[:1])
    wrong = {str(shape): torch.rand(shape) for shape in ((3, 20, 12), (12, 20), (4, 12, 20), (0, 3, 12, 20))}
    wrong |= {"uint8": images.byte(), "to 1.99": 2 * images, "from -0.49": images - 0.5}
    for named, images in wrong.items():
        with pytest.raises(ValueError, match=re.escape(named)):
            HALF(images)


@pytest.mark.parametrize(
    ("size", "settings"),
    [(32, dict(crop_pct=0.9, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.25))), ((32, 64), {})],
    ids=str,
)
def test_mean_std_and_size_are_those_that_timm_s_transform_uses(peer, tmp_path, settings, size):
    timm, sides = peer("timm"), (size, size) if isinstance(size, int) else size
    theirs, image = timm.create_model("test_vit", img_size=size), photo("cat", sides)
    peer("timm.models").save_for_hf(
        theirs, tmp_path, safe_serialization=True, model_config={"pretrained_cfg": settings}
    )
    read = load_pretrained(tmp_path).prepare
    settings = dict(interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3) | settings
    assert (read.mean, read.std, read.size) == (settings["mean"], settings["std"], sides)
    # Cut to the size already, a picture is only normalised.
    transform = timm.data.create_transform((3, *sides), **settings | dict(crop_pct=1.0, crop_mode="squash"))
    pixels = Image.fromarray((255 * image.permute(1, 2, 0)).round().byte().numpy())
    assert_close(read(image)[0], transform(pixels), rtol=0, atol=0.5 / 255 / min(read.std))


def test_pictures_of_one_channel_are_prepared_by_nobody(peer, tmp_path):
    theirs, images = peer("timm").create_model("test_vit", img_size=32, in_chans=1).eval(), torch.rand(1, 1, 32, 32)
    peer("timm.models").save_for_hf(theirs, tmp_path, safe_serialization=True)
    loaded = load_pretrained(tmp_path)
    assert loaded.prepare is None
    assert_close(loaded.model(images), theirs(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("file", "kind"), [("model.safetensors", str), ("pytorch_model.bin", Path)])
def test_a_folder_that_timm_wrote_is_loaded(repository, tmp_path, file, kind):
    path, images = copy_of(repository, tmp_path, label_names=list("abcde")), torch.rand(2, 3, 32, 32)
    for other in {"model.safetensors", "pytorch_model.bin"} - {file}:
        (path / other).unlink()
    loaded = load_pretrained(kind(path))
    assert_close(loaded.model(images), repository[1](images), rtol=0, atol=1e-4)
    assert (loaded.source, loaded.class_names, loaded.model.training) == (str(path), tuple("abcde"), False)


@pytest.mark.parametrize("name", ["./weights", "a/b/c", "~/vit", Path(__file__)])
def test_what_is_neither_a_folder_nor_a_repository_is_refused(name):
    with pytest.raises(ValueError, match=rf"{Path(name).name} is neither .*convert_weights"):
        load_pretrained(name)


def test_without_timm_its_reason_and_a_way_out_are_told(repository, monkeypatch):
    def fail(module):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(published, "import_module", fail)
    with pytest.raises(ModuleNotFoundError, match=r"::nms.* pip install vit-walkthrough\[pretrained\].*load_tiny"):
        load_pretrained(repository[0])


def test_a_config_that_the_weights_do_not_fit_is_refused(repository, tmp_path):
    wrong = {"vit_of_nobody": {"architecture": "vit_of_nobody"}, "says 3 classes, .* 5": {"num_classes": 3}}
    wrong |= {"names 2; .* 5": {"label_names": ["a", "b"]}, "48": {"model_args": {"img_size": 32, "embed_dim": 48}}}
    wrong |= {"ReLU": {"model_args": {"img_size": 32, "num_classes": 5, "act_layer": "relu"}}}
    for number, (named, changes) in enumerate(wrong.items()):
        with pytest.raises(ValueError, match=named):
            load_pretrained(copy_of(repository, tmp_path / str(number), **changes))


def test_code_in_weights_is_refused_and_not_run(repository, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = copy_of(repository, tmp_path)
    (path / "model.safetensors").unlink()
    torch.save({"norm.weight": Trap()}, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load"):
        load_pretrained(path)
    assert not (tmp_path / "executed").exists()


def test_what_was_fetched_once_needs_no_network_and_the_rest_says_what_to_do(repository, peer, tmp_path, monkeypatch):
    constants, errors = peer("huggingface_hub.constants"), peer("huggingface_hub.errors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"someone/vit .*load_tiny"):
        load_pretrained("someone/vit")
    cached = tmp_path / "models--someone--vit"  # the hub's own cache, in it a folder for each version
    shutil.copytree(repository[0], cached / "snapshots" / "0")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0")
    images = torch.rand(2, 3, 32, 32)
    assert_close(load_pretrained("someone/vit").model(images), repository[1](images), rtol=0, atol=1e-4)

    def fail(name, pretrained):
        raise errors.RepositoryNotFoundError.__new__(errors.RepositoryNotFoundError)  # without its response

    monkeypatch.setattr(peer("timm"), "create_model", fail)
    with pytest.raises(ValueError, match="timm/vit_tiny"):
        load_pretrained("someone/vit")


@pytest.mark.network
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_small_patch16_224.dino"])
@torch.inference_mode()
def test_the_photos_are_what_they_are(name):
    loaded = load_pretrained(f"timm/{name}")
    for picture, expected in {"cat": "tabby|tiger cat|egyptian cat|lynx", "coffee": "espresso|cup|mug|eggnog"}.items():
        answer = loaded.model(loaded.prepare(photo(picture)))
        if "dino" in name:
            assert answer.shape == (1, 384)
        else:
            assert any(kind in loaded.class_names[answer.argmax().item()].lower() for kind in expected.split("|"))
