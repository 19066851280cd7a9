"""Published weights by name. The library that wrote them reads them and prepares the pictures; we convert its model."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.convert import convert_weights

UNKNOWN = (
    "published weights are called, for example, timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k, facebook/dino-vits16, "
    "google/vit-base-patch16-224 or torchvision/vit_b_16, but not"
)
OFFLINE = "load_tiny() gives a bundled ViT and needs no network"
# What can only be a path: it ends as a file does, begins as a path does, or has more than one slash.
PATH = re.compile(r"\.(safetensors|npz|pth|pt|ckpt|bin|pkl|h5|onnx|msgpack)$|^[./~]|/.*/|\\", re.IGNORECASE)
Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """(images - mean) / std, as in the training of certain weights. Other numbers cost accuracy, and raise no error.

    mean, std: of the channels. size: (height, width) of the images that the model reads.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __call__(self, images: Tensor) -> Float[Tensor, "batch channels height width"]:
        """An image in [0, 1] or a batch of images, normalised.

        Raises: ValueError for images of another size, type or range, and for none.
        """
        batch, expected = images if images.ndim == 4 else images[None], (len(self.mean), *self.size)
        if batch.shape[1:] != expected or not len(batch):
            wanted = f"(batch, {str(expected)[1:]}; load_image(picture, {self.size}) gives such an image"
            raise ValueError(f"images of {tuple(images.shape)}, but these weights read {wanted}")
        if not batch.is_floating_point() or batch.amin() < -1e-3 or batch.amax() > 1.001:
            given = f"images of {batch.dtype} from {batch.amin()} to {batch.amax()}"
            raise ValueError(f"{given}; they must be floats in [0, 1], not 0 to 255 and not normalised before")
        mean, std = (torch.tensor(numbers).to(batch)[:, None, None] for numbers in (self.mean, self.std))
        return (batch - mean) / std


@dataclass(frozen=True)
class Pretrained:
    """A model with published weights, in eval mode, and what belongs to it.

    preprocessing: for images as tensors; None where the publisher says nothing. class_names: in the order of the
    logits; none without logits. source: where the weights are from. transform: the library's own, which also scales and
    crops: from a Pillow picture to one image that the model reads.
    """

    model: VisionTransformer
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    source: str
    transform: Transform | None = None

    def prepare(self, images: Tensor) -> Float[Tensor, "batch channels height width"]:
        """Images in [0, 1], cut to the size of the model, as the model wants them.

        Raises: as Preprocessing; ValueError if the preprocessing is not known.
        """
        if self.preprocessing is None:
            raise ValueError(f"{self.source} does not say how to prepare images, and a wrong guess would stay unseen")
        return self.preprocessing(images)


def load_pretrained(name: str | os.PathLike) -> Pretrained:
    """Published weights in our ViT, with the preprocessing and the names of the classes.

    name: a repository of the Hugging Face hub that timm or transformers wrote, or a folder with the same files; or a
    model of torchvision, "torchvision/vit_b_16". What was fetched once needs no network again. No code in a file is
    run. `train.finetune.adapt` makes a model for another size or for other classes of it.

    Raises: ConnectionError if the weights are neither cached nor can be fetched; FileNotFoundError for a path that
    does not exist; ModuleNotFoundError for a library that cannot be imported; ValueError for whatever else is refused.
    """
    source = str(name)
    if Path(name).exists() or isinstance(name, os.PathLike) or PATH.search(source):
        place, read = Path(name), _reader(Path(name))
    elif source.startswith("torchvision/"):
        place, read = source.removeprefix("torchvision/"), _read_torchvision
    elif "/" in source:
        place = _fetched(source)
        read = _reader(place)
    else:
        raise ValueError(f"{UNKNOWN} {source!r}")
    try:
        model, transform, class_names = read(place)
        preprocessing, size = None, (model.config.height, model.config.width)
        if transform and model.config.channels == 3:
            preprocessing = _measured(transform)
            if preprocessing.size != size:
                raise ValueError(f"its images are prepared as {preprocessing.size}, but the model reads {size}")
        if isinstance(model.head.logits, nn.Identity):
            class_names = ()
        elif len(class_names) != model.config.classes:
            raise ValueError(f"{len(class_names)} classes are named, but the head has {model.config.classes}")
    except (ConnectionError, ModuleNotFoundError):
        raise
    except Exception as error:  # what a library raises for files that it does not understand
        raise ValueError(f"{source} cannot be loaded: {error}") from error
    return Pretrained(model, preprocessing, class_names, source, transform)


def _measured(transform: Transform) -> Preprocessing:
    """What a library's transform subtracts and divides by, seen in what it makes of a black and of a white picture."""
    black, white = (transform(Image.new("RGB", (256, 256), colour)) for colour in ("black", "white"))
    height, width = black.shape[1:]
    low, high = (picture[:, height // 2, width // 2].double() for picture in (black, white))
    std = 1 / (high - low)
    mean, std = (tuple(float(f"{number:.6g}") for number in numbers) for numbers in (0.0 - low * std, std))
    return Preprocessing(mean, std, (height, width))


def _reader(folder: Path) -> Callable:
    """What reads a folder, by the library that wrote it."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file; convert_weights(read_weights({str(folder)!r}), source) reads it")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no file or folder at {folder}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = "timm" if "architecture" in config else config["model_type"]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} has no config.json of timm or transformers ({error!r})") from error
    if kind not in ("timm", "vit"):
        raise ValueError(f"{folder} holds a {kind}; only the paper's ViT can be converted")
    return _read_timm if kind == "timm" else _read_transformers


def _imported(module: str) -> ModuleType:
    try:
        return import_module(module)
    except Exception as error:  # it is not installed, or does not fit the versions of others
        raise ModuleNotFoundError(
            f"{module.split('.')[0]} cannot be imported ({error}); pip install vit-walkthrough[pretrained]. {OFFLINE}"
        ) from error


def _fetched(name: str) -> Path:
    """The folder of a repository in the hub's cache. What is missing there is fetched."""
    hub, errors = _imported("huggingface_hub"), _imported("huggingface_hub.errors")
    try:
        for weights in ("model.safetensors", "pytorch_model.bin"):
            folder = Path(hub.snapshot_download(name, allow_patterns=["*.json", weights]))
            if (folder / weights).is_file():
                return folder
    except errors.GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise ConnectionError(f"accept the terms at huggingface.co/{name} and log in. {OFFLINE}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(f"{UNKNOWN} {name!r}") from error
    except Exception as error:  # of the hub, of its HTTP library, of sockets
        raise ConnectionError(f"{name} is not in the cache and cannot be fetched. {OFFLINE}") from error
    raise ValueError(f"{name} has neither model.safetensors nor pytorch_model.bin")


def _read_timm(folder: Path) -> tuple[VisionTransformer, Transform | None, tuple[str, ...]]:
    timm = _imported("timm")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True)
    told, classes = theirs.pretrained_cfg, theirs.num_classes
    if told["num_classes"] != classes:  # timm then leaves the head random
        raise ValueError(f"its config says both {told['num_classes']} classes and {classes}")
    model = convert_weights(theirs, "timm")
    size = dict(input_size=(model.config.channels, model.config.height, model.config.width))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs, args=size))
    labels, descriptions = told.get("label_names"), told.get("label_descriptions") or {}
    subset = timm.data.infer_imagenet_subset(theirs)
    if not labels and subset:
        info = timm.data.ImageNetInfo(subset)
        labels, descriptions = info.label_names(), info.label_descriptions(as_dict=True)
    return model, transform, tuple(descriptions.get(label, label) for label in labels or map(str, range(classes)))


def _read_torchvision(name: str) -> tuple[VisionTransformer, Transform | None, tuple[str, ...]]:
    models = _imported("torchvision.models")
    known = models.list_models(include="vit_*")
    if name not in known:
        raise ValueError(f"torchvision's ViTs are {', '.join(known)}")
    weights = models.get_model_weights(name).DEFAULT
    theirs = models.get_model(name, image_size=weights.meta["min_size"][0])
    try:
        theirs.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    except OSError as error:
        raise ConnectionError(f"{weights.url} is not in the cache and cannot be fetched. {OFFLINE}") from error
    return convert_weights(theirs, "torchvision"), weights.transforms(), tuple(weights.meta["categories"])


def _read_transformers(folder: Path) -> tuple[VisionTransformer, Transform | None, tuple[str, ...]]:
    _imported("transformers.models.vit.modeling_vit")  # "transformers" alone does not import it
    transformers = _imported("transformers")
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with_head = "ViTForImageClassification" in (config.architectures or ())
    kind = transformers.ViTForImageClassification if with_head else transformers.ViTModel
    theirs, report = kind.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    faults = {fault: sorted(map(str, report[f"{fault}_keys"])) for fault in ("missing", "unexpected", "mismatched")}
    if faults["missing"] == ["pooler.dense.bias", "pooler.dense.weight"]:  # not in the file, so random
        theirs.pooler, faults["missing"] = None, []
    for fault, names in faults.items():
        if names:
            raise ValueError(f"{fault} weights: {', '.join(names[:4])}")
    transform = None
    if (folder / "preprocessor_config.json").is_file():
        processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)

        def transform(picture: Image.Image) -> Tensor:
            return processor(picture, return_tensors="pt")["pixel_values"][0]

    names = tuple(config.id2label[number] for number in range(config.num_labels))
    return convert_weights(theirs, "transformers"), transform, names
