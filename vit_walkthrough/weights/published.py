"""Published weights by name: from the Hugging Face hub, from torchvision, or from a file; with their preprocessing."""

import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from vit_walkthrough.data import MIN_KEPT, read_image
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.convert import convert_weights, guess_source

# Names known to be the paper's ViT; the hub has more. Who misspells one is told the nearest of these.
PUBLISHED = (
    "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k",
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    "timm/vit_small_patch32_224.augreg_in21k_ft_in1k",
    "timm/vit_base_patch8_224.augreg_in21k_ft_in1k",
    "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    "timm/vit_base_patch32_224.augreg_in21k_ft_in1k",
    "timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
    "timm/vit_small_patch16_224.dino",
    "google/vit-base-patch16-224",
    "google/vit-base-patch16-224-in21k",
    "google/vit-base-patch16-384",
    "google/vit-base-patch32-384",
    "google/vit-large-patch16-224",
    "facebook/dino-vits8",
    "facebook/dino-vits16",
    "facebook/dino-vitb8",
    "facebook/dino-vitb16",
    "torchvision/vit_b_16",
    "torchvision/vit_b_32",
    "torchvision/vit_l_16",
    "torchvision/vit_l_32",
)
# torchvision's own table: a file whose name ends in the beginning of its hash, and what is resized before the crop.
TORCHVISION = {
    "torchvision/vit_b_16": ("vit_b_16-c867db91.pth", 256),
    "torchvision/vit_b_32": ("vit_b_32-d86f8d99.pth", 256),
    "torchvision/vit_l_16": ("vit_l_16-852ce7e3.pth", 242),
    "torchvision/vit_l_32": ("vit_l_32-c7638314.pth", 256),
}
TORCHVISION_ADDRESS = "https://download.pytorch.org/models/"
WEIGHTS = (".safetensors", ".npz", ".pth", ".pt", ".bin")
OFFLINE = "load_tiny() gives a ViT that comes along and needs no network"


@dataclass(frozen=True)
class Preprocessing:
    """How pictures must be prepared for certain weights. Another way than in their training lowers the accuracy, and
    no error tells.

    mean, std: of the channels, subtracted and divided by. size: (height, width) that the model reads. crop: the share
    of the shorter side that is kept when the centre is cut out; None squeezes the whole picture into the size.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop: float | None = 1.0

    def __call__(self, images) -> Float[Tensor, "batch 3 height width"]:
        """A picture, or a list of them, for the model. A picture is all that load_image reads, scaled and cropped;
        only a tensor, (3 height width) or a batch of such, is taken to be cut to the size and in [0, 1] already.

        Raises: as load_image; ValueError for a tensor of another size, range or of whole numbers, and for no picture.
        """
        if isinstance(images, Tensor):
            batch = images if images.ndim == 4 else images[None]
            if batch.ndim != 4 or batch.shape[1:] != (3, *self.size):
                raise ValueError(
                    f"a tensor of {tuple(images.shape)}, but these weights read (batch, 3, {self.size[0]}, "
                    f"{self.size[1]}); give the picture itself, or load_image(source, {self.size})"
                )
            if not batch.is_floating_point():
                raise ValueError(f"a tensor of {batch.dtype}, but images are in [0, 1]; divide whole numbers by 255")
            if not len(batch):
                raise ValueError("there is no picture to prepare")
            if batch.amin() < -1e-3 or batch.amax() > 1.001:
                raise ValueError("a tensor of images must be in [0, 1]; was it normalised already?")
            mean, std = (torch.tensor(numbers).to(batch)[:, None, None] for numbers in (self.mean, self.std))
            return (batch - mean) / std
        if isinstance(images, (list, tuple)):
            if not images:
                raise ValueError("there is no picture to prepare")
            return torch.cat([self(image) for image in images])
        return self(self._cut(read_image(images)))

    def _cut(self, picture: Tensor) -> Tensor:
        sides, (height, width) = picture.shape[1:], self.size
        if min(sides) < MIN_KEPT * max(sides):
            raise ValueError(f"a picture of {sides[0]} x {sides[1]} pixels is too long; cut out the part that matters")
        if self.crop is None:
            return self._resized(picture, self.size)
        # As small as it can be with the size over crop inside; rounded as in timm and torchvision.
        inside = [int(side / self.crop + 1e-6) for side in self.size]
        scaled, side = max(zip(inside, sides, strict=True), key=lambda pair: pair[0] / pair[1])
        picture = self._resized(picture, tuple(int(other * scaled / side + 1e-6) for other in sides))
        top, left = (round((side - kept) / 2) for side, kept in zip(picture.shape[1:], self.size, strict=True))
        return picture[:, top : top + height, left : left + width]

    def _resized(self, picture: Tensor, size: tuple[int, ...]) -> Tensor:
        resized = F.interpolate(picture[None], size, mode=self.interpolation, align_corners=False, antialias=True)
        return resized[0].clamp(0, 1)  # bicubic can overshoot


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224), "bilinear", 224 / 256)


@dataclass(frozen=True)
class Pretrained:
    """A model with published weights, in eval mode, and what belongs to them.

    preprocessing: as their publisher says; None for a file that comes without. class_names: in the order of the
    logits, numbers where nobody says. source: where the weights are from.
    """

    model: VisionTransformer
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    source: str

    def prepare(self, images) -> Float[Tensor, "batch 3 height width"]:
        """Pictures as this model wants them; see Preprocessing.

        Raises: as Preprocessing; ValueError if nobody said how.
        """
        if self.preprocessing is None:
            raise ValueError(
                f"{self.source} does not say how its pictures were prepared, and a wrong guess would go unseen; "
                f"say load_pretrained(..., preprocessing=Preprocessing(mean, std, size))"
            )
        return self.preprocessing(images)


def load_pretrained(name: str | Path, *, preprocessing: Preprocessing | None = None, **options) -> Pretrained:
    """Published weights in our ViT.

    name: a repository of the Hugging Face hub in the format of timm or transformers ("timm/vit_tiny_patch16_224.
    augreg_in21k_ft_in1k"); one of torchvision's ("torchvision/vit_b_16"); a file (.safetensors, .npz, .pth) or a folder
    with config.json and weights. Downloads are kept in the cache of the hub or of torch, and resumed by the hub.
    preprocessing: instead of what the publisher says. options: heads, classes, image_size, grid and mode, as
    convert_weights; the preprocessing follows image_size.

    No code in a file is run: .pth is read with weights_only, .npz without pickle.

    Raises: ConnectionError if the weights are neither here nor can be fetched; FileNotFoundError for a file that is not
    there; ValueError for an unknown name (the message offers near ones), a broken file, another architecture, or a head
    of another size than the config says, if `classes` does not say so; ModuleNotFoundError without huggingface_hub.
    """
    name, names = str(name), ()
    if name in TORCHVISION:
        file, resized = TORCHVISION[name]
        path, published, names = _download(file), replace(IMAGENET, crop=224 / resized), _imagenet_names()
    elif Path(name).is_file() or name.endswith(WEIGHTS):
        path, published = Path(name), None
    else:
        if not name or (not Path(name).is_dir() and (name.count("/") != 1 or name.startswith("torchvision/"))):
            raise ValueError(_unknown(name))
        config = _json(_fetch(name, "config.json"))
        if "model_type" in config:
            published, names, told = _of_transformers(name, config)
        else:
            published, names, told = _of_timm(name, config)
        options = told | options
        path = next(filter(None, (_fetch(name, file) for file in ("model.safetensors", "pytorch_model.bin"))), None)
        if path is None:
            raise ValueError(f"{name} has neither model.safetensors nor pytorch_model.bin")

    state = read_weights(path)
    library = guess_source(state)
    if library is None:
        raise ValueError(
            f"the names in {path.name} are none of timm's, torchvision's, transformers' or Google's "
            f"({', '.join(list(state)[:4])}); what save_checkpoint wrote, load_checkpoint reads"
        )
    model = convert_weights(state, library, **options)
    headless, classes = isinstance(model.head.logits, nn.Identity), model.config.classes
    if names and len(names) != classes and not headless and "classes" not in options:
        raise ValueError(
            f"{name} speaks of {len(names)} classes, but its head has {classes}; say classes={classes} for this head, "
            f"or another number for a new one"
        )
    if published:
        published = replace(published, size=(model.config.height, model.config.width))
    names = () if headless else names if len(names) == classes else _numbers(classes)
    return Pretrained(model, preprocessing or published, names, name)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .npz or .pth file by name. Nothing in the file is run.

    Raises: FileNotFoundError; ValueError for a broken file, one of another kind, or one with more than tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        # Mapped and not read: the copy into the model is the only one.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path.name} holds more than tensors, or is no checkpoint; nothing in it was run") from error
    except Exception as error:  # a reader that meets a broken file may raise anything
        raise ValueError(f"{path.name} cannot be read; is the download complete? ({error})") from error
    for inner in ("model", "state_dict"):  # some keep the weights beside other things
        if isinstance(state, Mapping) and isinstance(state.get(inner), Mapping):
            state = state[inner]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path.name} holds no weights by name")
    return dict(state)


def _fetch(name: str, file: str) -> Path | None:
    """A file of a folder or of a repository of the hub, from the cache if it is there; None if they have no such."""
    if Path(name).is_dir():
        return Path(name, file) if Path(name, file).is_file() else None
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"weights of the hub need: pip install huggingface_hub. Or {OFFLINE}") from error
    try:
        try:
            return Path(hf_hub_download(name, file, local_files_only=True))
        except LocalEntryNotFoundError:  # not in the cache
            get_hf_file_metadata(hf_hub_url(name, file))  # without a network it fails at once; the download tries on
            return Path(hf_hub_download(name, file))
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise ConnectionError(
            f"{name} is given only to those who accept its terms at huggingface.co/{name} and log in; {OFFLINE}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(_unknown(name)) from error
    except Exception as error:  # of the hub, of its HTTP library, of sockets
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise ConnectionError(f"{name} is not in the cache and cannot be fetched from the hub; {OFFLINE}") from error


def _download(file: str) -> Path:
    """A file from torchvision's address, or from torch's cache."""
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(TORCHVISION_ADDRESS + file, str(path), path.stem.split("-")[-1])
        except OSError as error:
            raise ConnectionError(f"{file} is not in the cache and cannot be fetched; {OFFLINE}") from error
        except RuntimeError as error:  # the hash is wrong; the file was thrown away
            raise ValueError(f"{file} did not arrive as it was sent; try again ({error})") from error
    return path


def _unknown(name: str) -> str:
    def plain(name: str) -> str:
        return name.split("/")[-1].lower().replace("_", "").replace("-", "")

    known = {plain(known.split(".")[0]): known for known in PUBLISHED} | {plain(known): known for known in PUBLISHED}
    near = dict.fromkeys(known[match] for match in get_close_matches(plain(name), known, n=3, cutoff=0.5))
    return f"no published weights are called {name!r}; near it: {', '.join(near or PUBLISHED[:3])}"


# ------------------------------------------------------------------------------------------- what a repository says


def _json(path: Path | None) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path else {}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is broken ({error})") from error


def _of_transformers(name: str, config: dict) -> tuple[Preprocessing | None, tuple[str, ...], dict]:
    act = config.get("hidden_act", "gelu")
    if (config["model_type"], act) != ("vit", "gelu"):
        raise ValueError(f"{name} is a {config['model_type']} with {act}, not a vit with gelu: another architecture")
    told = {"heads": config.get("num_attention_heads"), "eps": config.get("layer_norm_eps", 1e-12)}
    size = config.get("image_size", 224)
    if isinstance(size, list) and size[0] != size[1]:
        told["grid"] = tuple(side // config["patch_size"] for side in size)
    labels = config.get("id2label", {})
    names = tuple(str(labels[number]) for number in sorted(labels, key=int))

    says = _json(_fetch(name, "preprocessor_config.json"))
    if not says:
        return None, names, told
    factor, resample = says.get("rescale_factor", 1 / 255), says.get("resample", 2)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-3) or resample not in (2, 3):
        raise ValueError(f"{name} prepares pictures with rescale_factor {factor} and resample {resample}; not known")
    mean, std = says.get("image_mean", [0.5] * 3), says.get("image_std", [0.5] * 3)
    if not says.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    size, crop = says.get("size"), None
    if isinstance(size, dict) and "shortest_edge" in size:
        cut = says.get("crop_size", size["shortest_edge"])
        crop = (cut["height"] if isinstance(cut, dict) else cut) / size["shortest_edge"]
    interpolation = {2: "bilinear", 3: "bicubic"}[resample]  # Pillow's numbers
    return Preprocessing(tuple(mean), tuple(std), (224, 224), interpolation, crop), names, told


def _of_timm(name: str, config: dict) -> tuple[Preprocessing, tuple[str, ...], dict]:
    says = config | config.get("pretrained_cfg", {})
    if not {"architecture", "mean", "std"} <= says.keys():
        raise ValueError(f"{name} has no config.json of timm or transformers, so its weights cannot be understood")
    if config.get("global_pool", "token") not in ("token", ""):
        raise ValueError(f"{name} pools by {config['global_pool']!r}, not by the class token: another architecture")
    classes = config.get("num_classes", says.get("num_classes", 0))
    imagenet = _imagenet_names() if classes == 1000 else ()
    names = tuple(says.get("label_names") or imagenet or _numbers(classes))
    if descriptions := says.get("label_descriptions"):
        names = tuple(descriptions.get(label, label) for label in names)
    crop = None if says.get("crop_mode") == "squash" else says.get("crop_pct") or 1.0
    interpolation = says.get("interpolation", "bicubic")
    told = {"heads": config.get("model_args", {}).get("num_heads")}
    return Preprocessing(tuple(says["mean"]), tuple(says["std"]), (224, 224), interpolation, crop), names, told


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _imagenet_names() -> tuple[str, ...]:
    """The 1,000 names, if torchvision is installed; else numbers."""
    try:
        from torchvision.models import ViT_B_16_Weights
    except (ImportError, RuntimeError):  # a torchvision that does not fit torch raises the second
        return _numbers(1000)
    return tuple(ViT_B_16_Weights.DEFAULT.meta["categories"])
