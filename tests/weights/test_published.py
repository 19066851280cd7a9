"""published.py: names, files and folders, a hub on this machine, and everything that must be refused."""

import io
import json
import pickle
import re
import sys
import threading
from dataclasses import FrozenInstanceError, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from vit_walkthrough.data import photo
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights import published
from vit_walkthrough.weights.convert import tensor_names
from vit_walkthrough.weights.published import PUBLISHED, TORCHVISION, Preprocessing, load_pretrained, read_weights

TIMM = {
    "architecture": "vit_small_patch4_12",
    "num_classes": 5,
    "global_pool": "token",
    "model_args": {"num_heads": 4},
    "pretrained_cfg": {
        "mean": [0.5, 0.25, 0.5],
        "std": [0.5, 0.5, 0.25],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "num_classes": 5,
    },
}
TRANSFORMERS = {
    "model_type": "vit",
    "hidden_act": "gelu",
    "num_attention_heads": 4,
    "layer_norm_eps": 1e-12,
    "id2label": {"10": "eel", "0": "cat", "1": "car", "2": "cup", "3": "cow"},
}
PREPROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2, "size": {"height": 12, "width": 12}}


@pytest.fixture
def config():
    return ViTConfig(image_size=12, patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5)


@pytest.fixture
def write(model):
    """The model's weights in the names of timm or transformers."""

    def write(source: str = "timm") -> dict[str, torch.Tensor]:
        state = model.state_dict()
        state["patch_embedding.projection.weight"] = state["patch_embedding.projection.weight"].reshape(32, 3, 4, 4)
        return {
            name: part.contiguous()
            for ours, names in tensor_names(source, 2).items()
            if ours in state
            for name, part in zip(names, state[ours].chunk(len(names)), strict=True)
        }

    return write


@pytest.fixture
def folder(tmp_path, write):
    """A folder as a repository is: config.json, perhaps preprocessor_config.json, weights."""

    def folder(config: dict, source: str = "timm", preprocessor: dict | None = None, weights=None) -> Path:
        place = tmp_path / "repository"
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if preprocessor is not None:
            (place / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
        save_file(weights or write(source), place / "model.safetensors")
        return place

    return folder


def picture(height: int, width: int) -> Image.Image:
    """A smooth picture: what a way of resizing does at edges shall not decide."""
    rows, cols = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 7 + shift) + np.cos(cols / 5 - shift) for shift in (0, 1, 2)]
    return Image.fromarray((127.5 + 60 * np.stack(waves, -1)).round().astype(np.uint8))


# --- what comes back ---------------------------------------------------------------------------------------------


def test_a_repository_of_timm(folder, model):
    path = folder(TIMM)
    loaded, images = load_pretrained(path), torch.rand(2, 3, 12, 12)
    assert torch.equal(loaded.model(images), model(images))
    assert loaded.preprocessing == Preprocessing((0.5, 0.25, 0.5), (0.5, 0.5, 0.25), (12, 12), "bicubic", 0.9)
    assert loaded.class_names == tuple("01234")
    assert loaded.source == str(path)
    with pytest.raises(FrozenInstanceError):
        loaded.source = "elsewhere"


def test_a_repository_of_timm_with_names(folder):
    names = {"label_names": ["n1", "n2", "n3", "n4", "n5"], "label_descriptions": {"n2": "tabby cat"}}
    loaded = load_pretrained(folder(TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | names}))
    assert loaded.class_names == ("n1", "tabby cat", "n3", "n4", "n5")
    flat = {**TIMM, **TIMM["pretrained_cfg"]}  # as older repositories are
    del flat["pretrained_cfg"], flat["model_args"]
    assert load_pretrained(folder(flat), heads=4).preprocessing == loaded.preprocessing


def test_a_repository_of_transformers(folder, model):
    loaded = load_pretrained(folder(TRANSFORMERS, "transformers", PREPROCESSOR))
    assert loaded.class_names == ("cat", "car", "cup", "cow", "eel")
    assert loaded.preprocessing == Preprocessing((0.5,) * 3, (0.25,) * 3, (12, 12), "bilinear", None)
    assert {norm.eps for norm in loaded.model.modules() if isinstance(norm, torch.nn.LayerNorm)} == {1e-12}
    images = torch.rand(2, 3, 12, 12)
    assert_close(loaded.model(images), model(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({"size": 12}, dict(crop=None)),
        ({"size": {"shortest_edge": 16}, "crop_size": {"height": 12, "width": 12}, "resample": 3}, dict(crop=0.75)),
        ({"size": {"shortest_edge": 16}, "crop_size": 12}, dict(crop=0.75)),
        ({"do_normalize": False}, dict(mean=(0.0,) * 3, std=(1.0,) * 3)),
        ({"do_rescale": True, "rescale_factor": 0.00392156862745098}, {}),
    ],
    ids=str,
)
def test_the_ways_in_which_transformers_says_how_pictures_are_prepared(folder, says, expected):
    loaded = load_pretrained(folder(TRANSFORMERS, "transformers", PREPROCESSOR | says)).preprocessing
    interpolation = "bicubic" if says.get("resample") == 3 else "bilinear"
    assert loaded == replace(Preprocessing((0.5,) * 3, (0.25,) * 3, (12, 12), interpolation, None), **expected)


@pytest.mark.parametrize("says", [{"rescale_factor": 1 / 127.5}, {"resample": 0}], ids=str)
def test_a_way_that_is_not_known_is_not_guessed(folder, says):
    with pytest.raises(ValueError, match=r"prepares pictures with rescale_factor .* not known"):
        load_pretrained(folder(TRANSFORMERS, "transformers", PREPROCESSOR | says))


def test_without_a_word_on_preprocessing_pictures_are_refused_and_not_guessed(folder, tmp_path):
    loaded = load_pretrained(folder(TRANSFORMERS, "transformers"))
    assert loaded.preprocessing is None
    with pytest.raises(ValueError, match=r"does not say how its pictures were prepared, and a wrong guess would"):
        loaded.prepare(picture(20, 20))
    mine = Preprocessing((0.5,) * 3, (0.5,) * 3, (12, 12))
    loaded = load_pretrained(folder(TRANSFORMERS, "transformers"), preprocessing=mine)
    assert loaded.preprocessing == mine
    assert loaded.prepare(picture(20, 20)).shape == (1, 3, 12, 12)


def test_at_another_resolution_the_preprocessing_follows(folder):
    loaded = load_pretrained(folder(TIMM), image_size=(16, 24))
    assert loaded.model.config.image_size == loaded.preprocessing.size == (16, 24)
    assert loaded.model(loaded.prepare(picture(50, 60))).shape == (1, 5)


def test_a_file_alone(tmp_path, write, model):
    images = torch.rand(2, 3, 12, 12)
    save_file(write("torchvision"), tmp_path / "a.safetensors")
    torch.save(write("timm"), tmp_path / "b.pth")
    np.savez(tmp_path / "c.npz", **{name: tensor.numpy() for name, tensor in write("transformers").items()})
    for name in ("a.safetensors", "b.pth", "c.npz"):
        loaded = load_pretrained(tmp_path / name, heads=4)
        assert torch.equal(loaded.model(images), model(images))
        assert (loaded.preprocessing, loaded.class_names) == (None, tuple("01234"))


def test_a_file_can_be_overwritten_while_its_model_lives(tmp_path, write, model):
    """The weights are a copy, no window on the file."""
    images, path = torch.rand(2, 3, 12, 12), tmp_path / "b.pth"
    torch.save(write("timm"), path)
    loaded = load_pretrained(path, heads=4)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(loaded.model(images), model(images))


# --- heads of another size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_head_of_another_size_than_the_config_says(folder, kind):
    if kind == "timm":
        path = folder(TIMM | {"num_classes": 3})
    else:
        path = folder(TRANSFORMERS | {"id2label": {"0": "a", "1": "b", "2": "c"}}, "transformers")
    message = f"{path} speaks of 3 classes, but its head has 5; say classes=5 for this head, or another number"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_pretrained(path)
    kept = load_pretrained(path, classes=5)
    assert kept.class_names == tuple("01234")
    assert kept.model(torch.rand(1, 3, 12, 12)).abs().sum() > 0
    new = load_pretrained(path, classes=3)
    assert len(new.class_names) == 3
    assert torch.equal(new.model(torch.rand(1, 3, 12, 12)), torch.zeros(1, 3))


# --- preparing pictures ------------------------------------------------------------------------------------------


def test_a_tensor_is_only_normalised():
    prepare = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.5, 2.0), (12, 20))
    images = torch.rand(2, 3, 12, 20)
    assert_close(prepare(images), torch.stack([images[:, 0] * 2 - 1, images[:, 1] * 2 - 0.5, images[:, 2] / 2], 1))
    assert torch.equal(prepare(images[0]), prepare(images)[:1])
    assert torch.equal(prepare([images[1], images[0]]), prepare(images).flip(0))


@pytest.mark.parametrize("shape", [(3, 20, 12), (2, 3, 12, 21), (1, 1, 3, 12, 20), (12, 20), (4, 12, 20)], ids=str)
def test_a_tensor_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"^a tensor of .* but these weights read \(batch, 3, 12, 20\); give"):
        Preprocessing((0.5,) * 3, (0.5,) * 3, (12, 20))(torch.rand(shape))


def test_a_tensor_that_was_normalised_already_is_refused():
    prepare = Preprocessing((0.5,) * 3, (0.5,) * 3, (12, 12))
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]; was it normalised already\?"):
        prepare(prepare(torch.rand(1, 3, 12, 12)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("value", [0, 1, 100])
def test_a_tensor_of_whole_numbers_is_refused(dtype, value):
    prepare = Preprocessing((0.5,) * 3, (0.5,) * 3, (12, 12))
    with pytest.raises(ValueError, match=rf"^a tensor of {dtype}, but .* in \[0, 1\]; divide whole numbers by 255$"):
        prepare(torch.full((3, 12, 12), value, dtype=dtype))


@pytest.mark.parametrize("images", [[], (), torch.zeros(0, 3, 12, 12)], ids=["list", "tuple", "batch"])
def test_no_picture_at_all_is_refused(images):
    with pytest.raises(ValueError, match=r"^there is no picture to prepare$"):
        Preprocessing((0.5,) * 3, (0.5,) * 3, (12, 12))(images)


def test_pictures_of_all_kinds_and_shapes_become_one_batch(tmp_path):
    prepare = Preprocessing((0.5,) * 3, (0.5,) * 3, (24, 24), "bicubic", 0.9)
    picture(40, 60).save(tmp_path / "wide.png")
    batch = prepare([tmp_path / "wide.png", picture(60, 40), np.asarray(picture(24, 30)), photo("cat", 24)])
    assert batch.shape == (4, 3, 24, 24)
    assert batch.abs().max() <= 1


def test_a_whole_picture_is_squeezed_where_the_publisher_did_so():
    wide = torch.zeros(3, 20, 80)
    wide[:, :, :8] = 1
    stripe = Image.fromarray((wide.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    squeezed = Preprocessing((0.0,) * 3, (1.0,) * 3, (20, 20), "bilinear", None)(stripe)
    cut = Preprocessing((0.0,) * 3, (1.0,) * 3, (20, 20), "bilinear", 1.0)(stripe)
    assert squeezed[..., 0].min() > 0.9
    assert cut.max() == 0


def test_a_panorama_is_refused():
    for crop in (None, 0.9):
        with pytest.raises(ValueError, match="a picture of 10 x 300 pixels is too long"):
            Preprocessing((0.5,) * 3, (0.5,) * 3, (24, 24), crop=crop)(picture(10, 300))


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_pickle_that_wants_to_run_code_runs_nothing(tmp_path, write):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    for name, save in {
        "whole.pth": lambda path: torch.save(Trap(), path),
        "inside.pth": lambda path: torch.save(write() | {"norm.extra": Trap()}, path),
        "bare.pth": lambda path: path.write_bytes(pickle.dumps(Trap(), protocol=2)),
        "old.bin": lambda path: torch.save({"a": Trap()}, path, _use_new_zipfile_serialization=False),
    }.items():
        save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"^{name} holds more than tensors, or is no checkpoint; nothing in"):
            load_pretrained(tmp_path / name)
        assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "whole.pth", weights_only=False)
    assert (tmp_path / "executed").exists(), "the trap does not work"


def test_object_arrays_are_refused_and_run_nothing(tmp_path, write):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "vit.npz"
    arrays = {name: tensor.numpy() for name, tensor in write().items()}
    np.savez(path, **arrays, trap=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"^vit\.npz cannot be read; .*Object arrays cannot be loaded"):
        load_pretrained(path)
    assert not (tmp_path / "executed").exists()
    with np.load(path, allow_pickle=True) as loaded:
        loaded["trap"]
    assert (tmp_path / "executed").exists(), "the trap does not work"


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".bin"])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, write, suffix):
    path = tmp_path / f"vit{suffix}"
    if suffix == ".safetensors":
        save_file(write(), path)
    elif suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in write().items()})
    else:
        torch.save(write(), path, _use_new_zipfile_serialization=suffix == ".pth")
    content = path.read_bytes()
    for length in (0, 1, 9, 100, len(content) // 4, len(content) // 2, len(content) - 50, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"^vit\{suffix} (cannot be read; is the download complete\?|holds more)"):
            load_pretrained(path, heads=4)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs.github.com\n", b""])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_what_is_another_kind_of_file_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"vit{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^vit\.\w+ (cannot be read|holds more than tensors)"):
        load_pretrained(path)


@pytest.mark.parametrize(
    "content", [torch.rand(3), [torch.rand(3)], {"a": 3}, {"model": {"a": {"b": torch.rand(2)}}}, 7]
)
def test_a_pth_without_weights_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"^vit\.pth holds no weights by name$"):
        load_pretrained(tmp_path / "vit.pth")


def test_our_own_checkpoint_is_recognised(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"^the names in vit\.safetensors are none of .*, load_checkpoint reads$"):
        load_pretrained(tmp_path / "vit.safetensors")


def test_a_file_that_is_not_there(tmp_path):
    for name in ("vit.safetensors", tmp_path / "vit.npz"):
        for reader in (load_pretrained, read_weights):
            with pytest.raises(FileNotFoundError, match=f"^there is no file {re.escape(str(name))}$"):
                reader(name)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({}, "has no config.json of timm or transformers, so its weights cannot be understood"),
        ({"architecture": "vit"}, "has no config.json of timm or transformers"),
        ({"model_type": "swin"}, "is a swin with gelu, not a vit with gelu: another architecture"),
        (TIMM | {"global_pool": "map"}, "pools by 'map', not by the class token"),
        ([1, 2], "config.json is broken"),
    ],
    ids=str,
)
def test_a_repository_that_is_no_vit(folder, says, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_pretrained(folder(says))


def test_a_repository_without_weights_or_with_broken_ones(folder):
    path = folder(TIMM)
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-9])
    with pytest.raises(ValueError, match=r"^model\.safetensors cannot be read; is the download complete\?"):
        load_pretrained(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has neither model\.safetensors nor pytorch_model.bin"):
        load_pretrained(path)
    (path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^config\.json is broken"):
        load_pretrained(path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit-b16", "torchvision/vit_b_16"),
        ("vit_b_16", "torchvision/vit_b_16"),
        ("torchvision/vit_b16", "torchvision/vit_b_16"),
        ("torchvision/vit_l_33", "torchvision/vit_l_32"),
        ("dino_vits16", "facebook/dino-vits16"),
        ("vit-base-patch16-244", "google/vit-base-patch16-224"),
        ("vit_tiny_patch16_224", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("a/b/c", ""),
        ("", ""),
    ],
)
def test_a_name_that_does_not_exist_is_told_near_ones(name, near):
    with pytest.raises(ValueError, match=rf"^no published weights are called '{name}'; near it: .*{near}"):
        load_pretrained(name)


# --- a hub on this machine ---------------------------------------------------------------------------------------


class Hub:
    """What of the hub's protocol a download needs: HEAD and GET of /<repository>/resolve/main/<file>."""

    def __init__(self, repositories: dict[str, Path]):
        self.repositories, self.asked, self.cut, self.gated = repositories, [], 0, ()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append(f"{self.command} {self.path}")
                repository, _, file = self.path.strip("/").partition("/resolve/main/")
                place = hub.repositories.get(repository)
                path = place / file if place else None
                if repository in hub.gated:
                    self.send_response(401)
                    self.send_header("X-Error-Code", "GatedRepo")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if path is None or not path.is_file():
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound" if place else "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("ETag", f'"{file}{len(content)}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[: len(content) - hub.cut])

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
def hub(folder, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub cannot be imported")
    hub = Hub({"someone/vit": folder(TIMM)})
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.close()


def test_a_repository_of_the_hub_is_fetched_once(hub, model):
    images = torch.rand(2, 3, 12, 12)
    loaded = load_pretrained("someone/vit")
    assert torch.equal(loaded.model(images), model(images))
    assert loaded.source == "someone/vit"
    asked = len(hub.asked)
    assert {line.split("/")[-1] for line in hub.asked} >= {"config.json", "model.safetensors"}
    hub.close()
    assert torch.equal(load_pretrained("someone/vit").model(images), model(images))
    assert len(hub.asked) == asked


def test_a_repository_that_the_hub_does_not_have(hub):
    with pytest.raises(ValueError, match=r"^no published weights are called 'google/vit-base-patch16-225'; near it: "):
        load_pretrained("google/vit-base-patch16-225")
    with pytest.raises(ValueError, match=r"^no published weights are called 'google/vit base'; near it: "):
        load_pretrained("google/vit base")


def test_a_repository_whose_terms_were_not_accepted(hub):
    hub.gated = ("someone/vit",)
    message = (
        "someone/vit is given only to those who accept its terms at huggingface.co/someone/vit and log in; "
        "load_tiny() gives a ViT that comes along and needs no network"
    )
    with pytest.raises(ConnectionError, match=f"^{re.escape(message)}$"):
        load_pretrained("someone/vit")


def test_a_download_that_breaks_off_leaves_nothing_to_be_loaded(hub, model):
    hub.cut = 100
    with pytest.raises(ConnectionError, match=r"^someone/vit is not in the cache and cannot be fetched from the hub"):
        load_pretrained("someone/vit")
    hub.cut = 0
    assert torch.equal(load_pretrained("someone/vit").model.norm.weight, model.norm.weight)


def test_without_a_network_one_sentence_says_what_to_do(hub):
    hub.close()
    message = (
        "timm/vit_tiny is not in the cache and cannot be fetched from the hub; "
        "load_tiny() gives a ViT that comes along and needs no network"
    )
    with pytest.raises(ConnectionError, match=f"^{re.escape(message)}$"):
        load_pretrained("timm/vit_tiny")


def test_offline_by_decision(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"load_tiny\(\) gives a ViT"):
        load_pretrained("someone/vit")
    assert not hub.asked


def test_without_the_library_of_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install huggingface_hub. Or load_tiny\(\)"):
        load_pretrained("someone/vit")


# --- torchvision's address ---------------------------------------------------------------------------------------


def test_torchvision_s_address(monkeypatch, tmp_path, write):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    content = io.BytesIO()
    torch.save(write("torchvision"), content)
    asked = []

    def fetch(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        Path(path).write_bytes(content.getvalue())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        loaded = load_pretrained("torchvision/vit_b_16", heads=4, classes=3)
    assert asked == [("https://download.pytorch.org/models/vit_b_16-c867db91.pth", "c867db91")]
    assert loaded.preprocessing == replace(published.IMAGENET, size=(12, 12))
    with pytest.raises(ValueError, match="torchvision/vit_b_16 speaks of 1000 classes, but its head has 5"):
        load_pretrained("torchvision/vit_b_16", heads=4)


@pytest.mark.parametrize(
    ("error", "kind"), [(OSError("no network"), ConnectionError), (RuntimeError("hash"), ValueError)]
)
def test_torchvision_s_address_out_of_reach(monkeypatch, tmp_path, error, kind):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fetch(*_):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(kind, match=r"^vit_b_16-c867db91\.pth (is not in the cache and|did not arrive as it)"):
        load_pretrained("torchvision/vit_b_16")
    assert not list((tmp_path / "checkpoints").iterdir())


# --- the published weights themselves: pytest -m network ---------------------------------------------------------

PHOTOS = {  # ImageNet's classes that may come first
    "cat": {"tabby", "tiger cat", "Egyptian cat", "tabby, tabby cat", "lynx, catamount", "lynx"},
    "coffee": {"espresso", "cup", "coffee mug", "eggnog"},
}


@pytest.mark.network
@pytest.mark.parametrize(
    "name",
    [
        "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
        "timm/vit_base_patch32_224.augreg_in21k_ft_in1k",
        "google/vit-base-patch16-224",
        "torchvision/vit_b_16",
        "torchvision/vit_b_32",
    ],
)
@torch.inference_mode()
def test_the_photos_are_what_they_are(name):
    loaded = load_pretrained(name)
    for picture, expected in PHOTOS.items():
        best = loaded.model(loaded.prepare(photo_file(picture))).argmax().item()
        label = loaded.class_names[best]
        if label.isdigit():
            pytest.skip("the names of ImageNet's classes need torchvision")
        assert label.lower() in {known.lower() for known in expected}, label


def photo_file(name: str) -> Path:
    return Path(__file__).parents[2] / "images" / "photos" / f"{name}.jpg"


@pytest.mark.network
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_that_is_offered_exists(name):
    if name in TORCHVISION:
        import urllib.request

        request = urllib.request.Request(published.TORCHVISION_ADDRESS + TORCHVISION[name][0], method="HEAD")
        assert urllib.request.urlopen(request).status == 200
    else:
        hub = pytest.importorskip("huggingface_hub")
        files = hub.list_repo_files(name)
        assert "config.json" in files
        assert {"model.safetensors", "pytorch_model.bin"} & set(files)


@pytest.mark.network
def test_dino_without_a_head():
    loaded = load_pretrained("facebook/dino-vits16")
    assert loaded.model(loaded.prepare(photo_file("cat"))).shape == (1, 384)
    assert isinstance(loaded.model, VisionTransformer)
