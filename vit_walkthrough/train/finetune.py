"""Fine-tuning: a trained ViT for another image size or another task, and the few pictures to teach it with."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Integer, Shaped
from torch import Tensor, nn

from vit_walkthrough.data import load_image
from vit_walkthrough.model.tokens import PositionEmbedding, resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer
from vit_walkthrough.train.loop import best_device, plain_torch, seeded

Images, Prepare = Shaped[Tensor, "count ..."], Callable[[Tensor], Tensor]
AS_THEY_ARE = nn.Identity()


@seeded(0)  # new layers draw random numbers, which are overwritten at once
def adapt(
    model: VisionTransformer, *, image_size: int | tuple[int, int] | None = None, classes: int | None = None
) -> VisionTransformer:
    """A copy of the model for images of another size, its positions resampled, and for another task, with a new linear
    head that starts at zero. Without `classes` the head is kept. Every weight of the copy can learn. Source: 3.2."""
    adapted, old, like = copy.deepcopy(model), model.config, next(model.parameters())
    changes = {"image_size": image_size, "classes": classes}
    config = replace(old, **{name: value for name, value in changes.items() if value is not None})
    adapted.config = config
    if config.positions != "none" and (config.rows, config.cols) != (old.rows, old.cols):
        places = PositionEmbedding(config.rows, config.cols, config.dim, config.positions).to(like)
        if config.positions == "learned":
            trained, grid = model.position_embedding.positions.detach().float(), (old.rows, old.cols)
            places.positions = nn.Parameter(resample_positions(trained, config.rows, config.cols, grid=grid).to(like))
        adapted.position_embedding = places
    if classes is not None:
        adapted.head = ClassificationHead(config.dim, classes).to(like)
    return adapted.requires_grad_()


class Pictures:
    """A fixed set of pictures with their labels, in the form that `fit` and `evaluate` ask for.

    images: (count ...), of any kind. prepare: turns a batch of them into what the model reads. seed: of the order.
    Raises: ValueError for no pictures, or another number of labels."""

    def __init__(self, images: Images, labels: Integer[Tensor, " labels"], prepare: Prepare = AS_THEY_ARE, seed=0):
        if not len(images) or len(images) != len(labels):
            raise ValueError(f"{len(images)} pictures and {len(labels)} labels; there must be one label for each")
        self.images, self.labels, self.prepare, self.seed = images, labels, prepare, seed

    def sample(self, count: int, draw: int = 0) -> tuple[Tensor, Tensor, None]:
        """`count` pictures and their labels; there are no masks. Draws 0, 1, 2 ... of the same count go through all
        pictures in random order before any comes again."""
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        turn, skipped = divmod(draw * count, len(self.labels))
        order = torch.empty(0, dtype=torch.long)
        while len(order) < skipped + count:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + turn)
            order = torch.cat([order, torch.randperm(len(self.labels), generator=generator)])
            turn += 1
        chosen = order[skipped : skipped + count]
        return self.prepare(self.images[chosen]), self.labels[chosen], None


class LabelledFolder(Pictures):
    """The pictures of a folder that has a sub-folder for each class, all read at once and cropped to `size` in pixels.

    names: of the classes, in the order of their labels. prepare: of images in [0, 1]. Hidden files are left out.
    Raises: ValueError for fewer than two classes, a class without a file, or a file that load_image refuses."""

    def __init__(self, path, size=224, prepare: Prepare = AS_THEY_ARE, seed=0):
        folders = sorted(each for each in Path(path).iterdir() if each.is_dir() and not each.name.startswith("."))
        if len(folders) < 2:
            raise ValueError(f"{path} has {len(folders)} sub-folders; it needs one for each class, so two or more")
        self.names, images, labels = [folder.name for folder in folders], [], []
        for label, folder in enumerate(folders):
            files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
            if not files:
                raise ValueError(f"the class {folder.name} has no picture: there is no file in {folder}")
            for file in files:
                try:
                    images.append((255 * load_image(file, size)).round().byte())
                except ValueError as error:
                    raise ValueError(f"{folder.name}/{file.name} is no picture to learn from: {error}") from error
            labels += len(files) * [label]
        super().__init__(torch.stack(images), torch.tensor(labels), lambda batch: prepare(batch / 255), seed)


@torch.inference_mode()
def class_table(model: nn.Module, folder: LabelledFolder, *, batch_size: int = 100) -> str:
    """A text: for each class, how many pictures there are, and how many the model, in eval mode, names right."""
    device = next(model.parameters()).device
    said = [model(folder.prepare(batch).to(device)).argmax(-1).cpu() for batch in folder.images.split(batch_size)]
    right, wide = torch.cat(said) == folder.labels, max(5, *map(len, folder.names))
    rows = [(name, right[folder.labels == label]) for label, name in enumerate(folder.names)] + [("all", right)]
    lines = [f"{name:{wide}} {len(own):8,} {int(own.sum()):6,}" for name, own in rows]
    return "\n".join([f"{'class':{wide}} pictures  right", *lines])


@plain_torch()
@torch.no_grad()
def features(model: VisionTransformer, data: Pictures, *, batch_size: int = 100) -> Pictures:
    """What the model's head reads of every picture, (count dim), with the same labels. While the rest of a model is
    frozen, its features never change, so a new head can be trained on them alone, in seconds."""
    headless, device = copy.deepcopy(model).to(best_device()).eval(), best_device()
    headless.head = nn.Identity()
    read = [headless(data.prepare(batch).to(device)).cpu() for batch in data.images.split(batch_size)]
    return Pictures(torch.cat(read), data.labels, seed=data.seed)
