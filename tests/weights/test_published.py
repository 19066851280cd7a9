"""published.py: names, folders, a hub on this machine, and everything that must be refused. That the numbers are those
of the libraries is shown in tests/peers."""

import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.data import photo
from vit_walkthrough.weights.checkpoint import save_checkpoint
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
        (torch.ones(3, 12, 20, dtype=torch.bool), "bool"),
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
    "name",
    [
        "run7.ckpt",
        "checkpoints/last.ckpt",
        "M.SAFETENSORS",
        "./weights",
        "/weights/vit",
        "~/vit.pth",
        "a/b/c",
        Path("timm/vit_tiny"),
    ],
)
def test_a_path_that_does_not_exist_is_a_path(name, hub):
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        load_pretrained(name)
    assert not hub.asked


def test_a_file_is_told_how_it_is_read(tmp_path, model):
    save_checkpoint(tmp_path / "vit.safetensors", model)
    with pytest.raises(ValueError, match=r"read_weights\('.*vit\.safetensors'\)"):
        load_pretrained(tmp_path / "vit.safetensors")


@pytest.mark.parametrize("name", ["vit-b16", "vit_tiny_patch16_224"])
def test_a_name_without_an_owner_is_told_examples(name, hub):
    with pytest.raises(ValueError, match=f"timm/vit_tiny.*torchvision/vit_b_16.*{name}"):
        load_pretrained(name)
    assert not hub.asked


@pytest.mark.parametrize(
    ("library", "module"),
    [
        ("timm", "timm"),
        ("transformers", "transformers.models.vit.modeling_vit"),
        ("torchvision", "torchvision.models"),
        ("huggingface_hub", "huggingface_hub"),
    ],
)
def test_a_library_that_is_not_here_is_named(repository, monkeypatch, library, module):
    monkeypatch.setitem(sys.modules, module, None)
    name = {"torchvision": "torchvision/vit_b_16", "huggingface_hub": "someone/vit"}.get(library)
    with pytest.raises(ModuleNotFoundError, match=rf"^{library} .*pip install vit-walkthrough\[pretrained\]"):
        load_pretrained(name or repository[library][0])


def test_a_library_whose_import_fails_in_its_own_way_is_named_with_its_reason(repository, monkeypatch):
    from vit_walkthrough.weights import published

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
        ("timm", {"model_args": {"img_size": 32, "num_classes": 5, "act_layer": "relu"}}, "ReLU"),
        ("timm", {"label_names": ["a", "b"]}, "2 classes .* 5"),
        ("transformers", {"model_type": "swin"}, "swin"),
        ("transformers", {"hidden_act": "relu"}, "ReLU"),
        ("transformers", {"hidden_act": "gelu_pytorch_tanh"}, "GELUTanh"),
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


# --- a hub on this machine ---------------------------------------------------------------------------------------


class Hub:
    """What of the hub's protocol a download needs: which commit, which files, and the files."""

    SHA = "0" * 40

    def __init__(self, repositories: dict[str, Path]):
        self.repositories, self.asked, self.cut, self.gated = repositories, [], 0, False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append(f"{self.command} {self.path}")
                path = self.path.strip("/").split("?")[0].removeprefix("api/models/")
                owner, name, *rest = path.split("/")
                place = hub.repositories.get(f"{owner}/{name}")
                if place is None or hub.gated:
                    return self.answer(401 if hub.gated else 404, error="GatedRepo" if hub.gated else "RepoNotFound")
                files = [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
                         for file in place.iterdir()]  # fmt: skip
                if "/api/" in self.path:
                    whole = files if rest[0] == "tree" else {"id": f"{owner}/{name}", "sha": hub.SHA, "siblings": []}
                    return self.answer(200, json.dumps(whole).encode())
                if not (place / rest[-1]).is_file():
                    return self.answer(404, error="EntryNotFound")
                return self.answer(200, (place / rest[-1]).read_bytes(), tag=rest[-1])

            def answer(self, status, content=b"", error="", tag="x"):
                self.send_response(status)
                headers = {"Content-Length": len(content), "ETag": f'"{tag}"', "X-Repo-Commit": hub.SHA}
                for key, value in (headers | ({"X-Error-Code": error} if error else {})).items():
                    self.send_header(key, str(value))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[: len(content) - hub.cut * (len(content) > 10_000)])

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(repository, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub cannot be imported")
    hub = Hub({f"someone/{library}": folder for library, (folder, _) in repository.items()})
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.close()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_repository_is_fetched_once_and_then_needs_no_network(hub, repository, folder, library, file):
    """Also one that has only pytorch_model.bin, or no preprocessor: their absence is not asked of the network."""
    model, path = repository[library][1], folder(library)
    if file == "pytorch_model.bin":
        (path / "model.safetensors").unlink()
        torch.save(model.state_dict(), path / file)
    hub.repositories["someone/vit"] = path
    loaded, images = load_pretrained("someone/vit"), torch.rand(2, 3, 32, 32)
    theirs = model(images)
    assert_close(loaded.model(images), getattr(theirs, "logits", theirs), rtol=0, atol=1e-4)
    assert loaded.source == "someone/vit"
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert [line for line in fetched if "model" in line] == [f"GET /someone/vit/resolve/{Hub.SHA}/{file}"]
    load_pretrained("someone/vit")
    assert [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line] == fetched
    hub.close()
    assert torch.equal(load_pretrained("someone/vit").model(images), loaded.model(images))


def test_what_cannot_be_fetched_says_what_to_do(hub, monkeypatch):
    for name in ("google/vit-base-patch16-225", "google/vit base"):
        with pytest.raises(ValueError, match=f"torchvision/vit_b_16.*{name}"):
            load_pretrained(name)
    hub.repositories["someone/empty"] = Path(__file__).parent
    with pytest.raises(ValueError, match=r"model\.safetensors nor pytorch_model\.bin"):
        load_pretrained("someone/empty")
    hub.cut = 100
    with pytest.raises(ConnectionError, match=r"someone/timm .*load_tiny"):
        load_pretrained("someone/timm")
    hub.cut, hub.gated = 0, True
    with pytest.raises(ConnectionError, match=r"huggingface\.co/someone/transformers .*load_tiny"):
        load_pretrained("someone/transformers")
    hub.close()
    with pytest.raises(ConnectionError, match=r"someone/timm .*load_tiny"):
        load_pretrained("someone/timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="load_tiny"):
        load_pretrained("someone/transformers")


# --- torchvision's address ---------------------------------------------------------------------------------------


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


def test_torchvision_s_weights_are_fetched_once(address, monkeypatch):
    asked = []

    def fetch(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        torch.save(address.state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    images = torch.rand(1, 3, 224, 224)
    for _ in range(2):
        loaded = load_pretrained("torchvision/vit_b_16")
        assert_close(loaded.model(images), address(images), rtol=0, atol=1e-4)
    assert asked == [("https://download.pytorch.org/models/vit_b_16-c867db91.pth", "c867db91")]
    assert loaded.preprocessing == Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224))
    assert loaded.class_names[281] == "tabby"


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("no network"), ConnectionError), (RuntimeError("hash"), ValueError)]
)
def test_torchvision_s_address_out_of_reach(address, monkeypatch, error, kind):
    def fetch(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(kind, match="vit_b_16"):
        load_pretrained("torchvision/vit_b_16")
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
