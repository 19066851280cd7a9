"""Published weights by name: timm fetches them, reads them and prepares the pictures; we convert its model."""

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.weights.convert import convert_weights

OFFLINE = "load_tiny() gives a bundled ViT and needs no network"
OTHERS = "Take a name like timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k; convert_weights takes weights of other files"


@dataclass(frozen=True)
class Preprocessing:
    """(images - mean) / std of the channels, as in the training of certain weights; size: (height, width) of images.
    Other numbers cost accuracy, and raise no error."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __call__(self, images: Tensor) -> Float[Tensor, "batch channels height width"]:
        """An image in [0, 1] or a batch of images, normalised; ValueError for another size, type or range."""
        batch, expected = images if images.ndim == 4 else images[None], (len(self.mean), *self.size)
        if batch.shape[1:] != expected or not len(batch):
            told = f"images of {tuple(images.shape)}, but these weights read {expected}"
            raise ValueError(f"{told}; load_image(picture, {self.size}) gives such an image")
        if not batch.is_floating_point() or batch.amin() < -1e-3 or batch.amax() > 1.001:
            given = f"images of {batch.dtype} from {batch.amin()} to {batch.amax()}"
            raise ValueError(f"{given}; they must be floats in [0, 1], not 0 to 255 and not normalised before")
        mean, std = (torch.tensor(numbers).to(batch)[:, None, None] for numbers in (self.mean, self.std))
        return (batch - mean) / std


@dataclass(frozen=True)
class Pretrained:
    """A model with published weights, in eval mode. prepare: makes of images in [0, 1] what the model reads; None where
    the publisher does not say how. class_names: in the order of the logits; none without logits."""

    model: VisionTransformer
    prepare: Preprocessing | None
    class_names: tuple[str, ...]
    source: str


def load_pretrained(name: str | Path) -> Pretrained:
    """Published weights in our ViT, with the preprocessing and the names of the classes.

    name: a repository of the Hugging Face hub that timm wrote, such as "timm/vit_small_patch16_224.dino", or a folder
    with the same files. What was fetched once needs no network again. No code in a file is run.

    Raises: ModuleNotFoundError if timm cannot be imported; ConnectionError if the weights are neither cached nor can be
    fetched; ValueError for whatever else is refused.
    """
    source, folder = str(name), Path(name)
    if not folder.is_dir() and (folder.is_file() or not re.fullmatch(r"[\w-]+/[\w.-]+", source)):
        raise ValueError(f"{source} is neither a folder nor a repository. {OTHERS}")
    try:
        timm, hub = import_module("timm"), import_module("huggingface_hub.errors")
    except Exception as error:  # it is not installed, or does not fit the versions of others
        install = f"pip install vit-walkthrough[pretrained]. {OFFLINE}"
        raise ModuleNotFoundError(f"timm cannot be imported ({error}); {install}") from error
    try:
        theirs = timm.create_model(f"{'local-dir' if folder.is_dir() else 'hf-hub'}:{source}", pretrained=True)
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) as error:
        raise ConnectionError(f"{source} is not in the cache and cannot be fetched. {OFFLINE}") from error
    except Exception as error:  # what timm raises for files that it does not understand
        raise ValueError(f"timm cannot load {source} ({error!r}). {OTHERS}") from error
    model, prepare = convert_weights(theirs, "timm"), None
    if model.config.channels == 3:  # for others timm has no mean and std
        size = model.config.height, model.config.width
        settings = timm.data.resolve_model_data_config(theirs, args=dict(input_size=(3, *size)))
        prepare = Preprocessing(tuple(settings["mean"]), tuple(settings["std"]), size)
    class_names = () if isinstance(model.head.logits, nn.Identity) else _class_names(timm, theirs)
    return Pretrained(model, prepare, class_names, source)


def _class_names(timm, theirs: nn.Module) -> tuple[str, ...]:
    """What the config of the weights calls the classes, else ImageNet, else their numbers; checked to be as many."""
    told, classes = theirs.pretrained_cfg, theirs.num_classes
    labels, descriptions = told.get("label_names"), told.get("label_descriptions") or {}
    if not labels and (subset := timm.data.infer_imagenet_subset(theirs)):
        info = timm.data.ImageNetInfo(subset)
        labels, descriptions = info.label_names(), info.label_descriptions(as_dict=True)
    labels = labels or [str(number) for number in range(classes)]
    if {len(labels), told["num_classes"]} != {classes}:  # timm would leave the head random
        raise ValueError(f"its config says {told['num_classes']} classes, names {len(labels)}; the head has {classes}")
    return tuple(descriptions.get(label, label) for label in labels)
