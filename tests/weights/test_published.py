"""published.py: names, folders, downloads, and everything that must be refused. That the numbers are those of the
libraries is shown in tests/peers."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.data import photo
from vit_walkthrough.weights import published
from vit_walkthrough.weights.published import Preprocessing, load_pretrained

HALF = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.5, 2.0), (12, 20))


@pytest.fixture(scope="module")
def repository(tmp_path_factory, peer):
    """A folder as timm or transformers writes it, and its model: {library: (folder, model)}."""
    timm, transformers = peer("timm"), peer("transformers")
    peer("transformers.models.vit.modeling_vit")
    from timm.models import save_for_hf

    folder, models = tmp_path_factory.mktemp("repositories"), {}
    models["timm"] = timm.create_model("test_vit", img_size=32, num_classes=5).eval()
    save_for_hf(models["timm"], folder / "timm", safe_serialization="both")
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    names = {number: name for number, name in enumerate(("cat", "car", "cup"))}
    config = transformers.ViTConfig(image_size=32, id2label=names, **sizes)
    models["transformers"] = transformers.ViTForImageClassification(config).eval()
    models["transformers"].save_pretrained(folder / "transformers")
    return {library: (folder / library, model) for library, model in models.items()}


@pytest.fixture
def folder(repository, tmp_path):
    """A copy of a library's folder that may be changed; `changes` go into its config.json."""

    def folder(library: str = "timm", **changes) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(repository[library][0], copy)
        config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
        (copy / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        return copy

    return folder


# --- preparing images --------------------------------------------------------------------------------------------


def test_images_are_normalised():
    images = torch.rand(2, 3, 12, 20)
    assert_close(HALF(images), torch.stack([images[:, 0] * 2 - 1, images[:, 1] * 2 - 0.5, images[:, 2] / 2], 1))
    assert torch.equal(HALF(images[0]), HALF(images)[:1])


@pytest.mark.parametrize(
    ("images", "named"),
    [
        *[(torch.rand(shape), str(shape[-1])) for shape in ((3, 20, 12), (2, 3, 12, 21), (12, 20), (4, 12, 20))],
        (torch.rand(0, 3, 12, 20), "0, 3, 12, 20"),
        (torch.ones(3, 12, 20, dtype=torch.uint8), "uint8"),
        (2 * torch.rand(3, 12, 20), r"1\.9"),
        (torch.rand(3, 12, 20) - 0.5, r"-0\.4"),
    ],
)
def test_images_of_another_size_type_or_range_are_refused(images, named):
    with pytest.raises(ValueError, match=named):
        HALF(images)


def test_without_a_word_on_preprocessing_images_are_refused_and_not_guessed(repository):
    loaded = load_pretrained(repository["transformers"][0])
    assert loaded.preprocessing is loaded.transform is None
    with pytest.raises(ValueError, match="does not say how"):
        loaded.prepare(photo("cat", 32))


# --- names, paths and libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "named"),
    [
        *[(path, FileNotFoundError, Path(path).name) for path in ("run7.ckpt", "M.SAFETENSORS", "./weights", "a/b/c")],
        *[(path, FileNotFoundError, Path(path).name) for path in ("checkpoints/last.ckpt", "~/vit", Path("timm/vit"))],
        ("vit-b16", ValueError, "timm/vit_tiny.*torchvision/vit_b_16.*vit-b16"),
        (__file__, ValueError, r"read_weights\('.*test_published\.py'\)"),
    ],
    ids=str,
)
def test_a_name_that_no_hub_can_know_is_refused_without_asking_one(name, error, named, hub):
    with pytest.raises(error, match=named):
        load_pretrained(name)
    assert not hub.asked


@pytest.mark.parametrize(
    ("library", "module", "name"),
    [
        ("timm", "timm", None),
        ("transformers", "transformers.models.vit.modeling_vit", None),
        ("torchvision", "torchvision.models", "torchvision/vit_b_16"),
        ("huggingface_hub", "huggingface_hub", "someone/vit"),
    ],
)
def test_a_library_that_is_not_here_is_named(repository, monkeypatch, library, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"^{library} .*pip install vit-walkthrough\[pretrained\]"):
        load_pretrained(name or repository[library][0])


def test_a_library_whose_import_fails_in_its_own_way_is_named_with_its_reason(repository, monkeypatch):
    def broken(module):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(published, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match=r"^timm .*torchvision::nms"):
        load_pretrained(repository["timm"][0])


# --- folders that are refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "changes", "named"),
    [
        ("timm", {"architecture": "vit_of_nobody"}, "vit_of_nobody"),
        ("timm", {"num_classes": 3}, "5"),
        ("timm", {"model_args": {"img_size": 32, "num_classes": 7}}, "7"),
        ("timm", {"model_args": {"img_size": 32, "embed_dim": 48}}, "48"),
        ("timm", {"label_names": ["a", "b"]}, "2 classes .* 5"),
        ("transformers", {"model_type": "swin"}, "swin"),
        ("transformers", {"hidden_act": "relu"}, "ReLU"),
        ("transformers", {"id2label": {"0": "a", "1": "b"}}, "classifier"),
        ("transformers", {"num_hidden_layers": 2}, r"layers\.1\.|layer\.1\."),
        ("transformers", {"architectures": ["ViTModel"]}, "classifier"),
    ],
)
def test_a_config_that_the_weights_do_not_fit_is_refused(folder, library, changes, named):
    with pytest.raises(ValueError, match=named):
        load_pretrained(folder(library, **changes))


@pytest.mark.parametrize("content", ["{", "[1, 2]", "{}", '{"architecture_of": "vit"}'])
def test_a_folder_without_a_config_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_broken_weights_and_code_in_them_are_refused(folder, tmp_path, library):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = folder(library)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_pretrained(path)
    weights.unlink()
    torch.save({"norm.weight": Trap()}, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_pretrained(path)
    assert not (tmp_path / "executed").exists()


def test_images_prepared_at_another_size_than_the_model_reads_are_refused(folder, peer):
    path = folder("transformers")
    peer("transformers").ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(path)
    with pytest.raises(ValueError, match=r"\(48, 48\), .*\(32, 32\)"):
        load_pretrained(path)


# --- downloads ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(peer, tmp_path, monkeypatch):
    """huggingface_hub without a network: it copies from hub.folders, or raises hub.error."""
    library = peer("huggingface_hub")

    hub = SimpleNamespace(folders={}, asked=[], error=None)

    def snapshot_download(name, allow_patterns):
        hub.asked.append((name, allow_patterns[-1]))
        if hub.error:
            raise hub.error
        (tmp_path / "cache").mkdir(exist_ok=True)
        for path in hub.folders[name].iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr(library, "snapshot_download", snapshot_download)
    return hub


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_repository_is_fetched(hub, repository, folder, library, file):
    model, path = repository[library][1], folder(library)
    if file == "pytorch_model.bin":
        (path / "model.safetensors").unlink()
        torch.save(model.state_dict(), path / file)
    hub.folders = {"someone/vit": path}
    loaded, images = load_pretrained("someone/vit"), torch.rand(2, 3, 32, 32)
    theirs = model(images)
    assert_close(loaded.model(images), getattr(theirs, "logits", theirs), rtol=0, atol=1e-4)
    assert loaded.source == "someone/vit"
    assert hub.asked[-1] == ("someone/vit", file)


@pytest.mark.parametrize(
    ("error", "kind", "named"),
    [
        ("RepositoryNotFoundError", ValueError, "torchvision/vit_b_16.*someone/vit"),
        ("HFValidationError", ValueError, "torchvision/vit_b_16.*someone/vit"),
        ("GatedRepoError", ConnectionError, r"huggingface\.co/someone/vit .*load_tiny"),
        ("LocalEntryNotFoundError", ConnectionError, "someone/vit .*load_tiny"),
        (None, ValueError, r"model\.safetensors .*pytorch_model\.bin"),
    ],
)
def test_what_cannot_be_fetched_says_what_to_do(hub, peer, tmp_path, error, kind, named):
    hub.folders = {"someone/vit": tmp_path}
    if error:
        error = getattr(peer("huggingface_hub.errors"), error)
        hub.error = error.__new__(error)  # without the response that it wants
    with pytest.raises(kind, match=named):
        load_pretrained("someone/vit")


@pytest.fixture
def address(peer, monkeypatch, tmp_path):
    """torchvision's ViT-B/16 made small, and the address of its weights on this machine."""
    models = peer("torchvision.models")
    sizes = dict(patch_size=16, num_layers=1, num_heads=4, hidden_dim=32, mlp_dim=48)
    theirs = models.VisionTransformer(image_size=224, **sizes).eval()
    torch.nn.init.normal_(theirs.heads.head.weight)
    monkeypatch.setattr(models, "get_model", lambda name, image_size: models.VisionTransformer(image_size, **sizes))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return theirs


@pytest.mark.parametrize("error", [None, OSError("no network"), RuntimeError("hash")], ids=repr)
def test_torchvision_s_weights(address, monkeypatch, error):
    asked = []

    def fetch(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        if error:
            raise error
        torch.save(address.state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    if error:
        with pytest.raises(ConnectionError if isinstance(error, OSError) else ValueError, match="vit_b_16"):
            load_pretrained("torchvision/vit_b_16")
        return
    images = torch.rand(1, 3, 224, 224)
    for _ in range(2):
        loaded = load_pretrained("torchvision/vit_b_16")
        assert_close(loaded.model(images), address(images), rtol=0, atol=1e-4)
    assert asked == [("https://download.pytorch.org/models/vit_b_16-c867db91.pth", "c867db91")]
    assert loaded.preprocessing == Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224))
    assert loaded.class_names[281] == "tabby"
    with pytest.raises(ValueError, match=r"vit_b_17.*vit_b_16, vit_b_32"):
        load_pretrained("torchvision/vit_b_17")


# --- the published weights themselves: pytest -m network ---------------------------------------------------------


@pytest.mark.network
@pytest.mark.parametrize(
    "name",
    [
        "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        "google/vit-base-patch16-224",
        "torchvision/vit_b_16",
        "facebook/dino-vits16",
    ],
)
@torch.inference_mode()
def test_the_photos_are_what_they_are(name):
    loaded = load_pretrained(name)
    for picture, expected in {"cat": "tabby|tiger cat|egyptian cat|lynx", "coffee": "espresso|cup|mug|eggnog"}.items():
        answer = loaded.model(loaded.prepare(photo(picture)))
        if "dino" in name:
            assert answer.shape == (1, 384)
        else:
            assert any(kind in loaded.class_names[answer.argmax().item()].lower() for kind in expected.split("|"))
