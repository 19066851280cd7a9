"""Fine-tuning: a trained ViT for another size of image or another task, and the few pictures to teach it with."""

import copy
import hashlib
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from vit_walkthrough.model.tokens import PositionEmbedding, resample_positions
from vit_walkthrough.model.vit import ClassificationHead, VisionTransformer

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
RECORD = 1 + 3 * 32 * 32  # bytes of a picture: its label, then the pixels (channels height width)


@torch.random.fork_rng(devices=[])  # what the new layers draw is overwritten at once
def adapt(
    model: VisionTransformer,
    *,
    image_size: int | tuple[int, int] | None = None,
    classes: int | None = None,
    mode: Literal["bicubic", "bilinear"] = "bicubic",
) -> VisionTransformer:
    """A copy of the model for images of another size, its positions resampled, and for another task, with a new linear
    head that starts at zero. Without `classes` the head is kept. All of the copy learns, whatever was frozen.

    Raises: ValueError for a size that the patches do not tile, or classes below 1.
    Source: section 3.2.
    """
    adapted, old, like = copy.deepcopy(model), model.config, next(model.parameters())
    adapted.config = config = replace(
        old,
        image_size=old.image_size if image_size is None else image_size,
        classes=old.classes if classes is None else classes,
    )
    if config.positions != "none" and (config.rows, config.cols) != (old.rows, old.cols):
        places = PositionEmbedding(config.rows, config.cols, config.dim, config.positions).to(like)
        if config.positions == "learned":
            trained, grid = model.position_embedding.positions.detach().float(), (old.rows, old.cols)
            places.positions = nn.Parameter(resample_positions(trained, config.rows, config.cols, mode, grid).to(like))
        adapted.position_embedding = places
    if classes is not None:
        adapted.head = ClassificationHead(config.dim, classes).to(like)
    return adapted.requires_grad_()


class Pictures:
    """A fixed set of pictures with their labels, in the form that `fit` and `evaluate` ask for.

    images: (count ...), of any kind. prepare: makes of a batch of them what the model reads; by default nothing is
    changed. seed: of the order.

    Raises: ValueError for no pictures, or another number of labels.
    """

    def __init__(
        self,
        images: Shaped[Tensor, "count ..."],
        labels: Int[Tensor, " labels"],
        prepare: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ):
        if not len(images) or len(images) != len(labels):
            raise ValueError(f"{len(images)} pictures and {len(labels)} labels; there must be one label for each")
        self.images, self.labels, self.prepare, self.seed, self.draws = images, labels, prepare, seed, 0

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, count: int, draw: int | None = None) -> tuple[Tensor, Tensor, None]:
        """`count` pictures and their labels; there are no masks. Draws 0, 1, 2 ... of the same count go through all
        pictures in random order before any comes again. draw: if it is not given, the next one is taken.

        Raises: ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1")
        if draw is None:
            draw, self.draws = self.draws, self.draws + 1
        places = torch.arange(draw * count, (draw + 1) * count)
        rounds = (places // len(self)).unique().tolist()
        orders = {turn: self._order(turn) for turn in rounds}
        chosen = torch.tensor([orders[place // len(self)][place % len(self)] for place in places.tolist()])
        return self._prepared(chosen), self.labels[chosen], None

    def _order(self, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + turn)
        return torch.randperm(len(self), generator=generator).tolist()

    def _prepared(self, chosen: Tensor) -> Tensor:
        return self.prepare(self.images[chosen]) if self.prepare else self.images[chosen]


@torch.no_grad()
def features(model: VisionTransformer, data: Pictures, *, batch_size: int = 100, progress: bool = False) -> Pictures:
    """What the model's head reads of every picture, (count dim), with the same labels. While the rest of a model is
    frozen these never change, so a new head is trained on them alone, in seconds.

    progress: a bar on standard output. A GPU is used if there is one; afterwards the model is where it was.
    """
    read, training, place = [], model.training, next(model.parameters()).device
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    handle = model.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].cpu()))
    try:
        chunks = torch.arange(len(data)).split(batch_size)
        for chosen in tqdm(chunks, file=sys.stdout, disable=not progress, mininterval=0.5):
            model(data._prepared(chosen).to(device))
    finally:
        handle.remove()
        model.to(place).train(training)
    return Pictures(torch.cat(read), data.labels, seed=data.seed)


def cifar10(
    split: Literal["train", "test"] = "train", count: int | None = None, folder: str | Path | None = None
) -> tuple[UInt8[Tensor, "count 3 32 32"], Int[Tensor, " count"]]:
    """The first `count` pictures of CIFAR-10, and their labels, numbers of the names in CIFAR10.

    folder: where cifar-10-binary.tar.gz lies, or is put after a download of 170 MB; by default beside torch's other
    downloads. Its checksum is compared at every call. Nothing is unpacked to the disk, and no pickle is read.

    Raises: ConnectionError if the file is neither there nor can be fetched; ValueError if it is not what was
    published, for an unknown split, and for more pictures than there are.
    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r} is unknown; choose train or test")
    folder = Path(torch.hub.get_dir(), "datasets") if folder is None else Path(folder)
    path = folder / "cifar-10-binary.tar.gz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(CIFAR10_ADDRESS, str(path), CIFAR10_SHA256)
        except OSError as error:
            raise ConnectionError(f"{path.name} is not in {folder} and cannot be fetched") from error
        except RuntimeError as error:  # another hash; the file was thrown away
            raise ValueError(f"{path.name} did not arrive as it was published; try again ({error})") from error
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != CIFAR10_SHA256:
        raise ValueError(f"{path.name} in {folder} is broken or another file; delete it, and it is fetched again")

    files = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    content = bytearray()
    with tarfile.open(path) as archive:
        for name in files:
            if count is None or count < 1 or len(content) < count * RECORD:
                content += archive.extractfile(f"cifar-10-batches-bin/{name}.bin").read()
    there = len(content) // RECORD
    if count is not None and not 1 <= count <= there:
        raise ValueError(f"count is {count}; {split} has 1 to {there:,} pictures")
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(there, RECORD)[:count]
    return records[:, 1:].reshape(-1, 3, 32, 32).clone(), records[:, 0].long()
