"""Notebook 02: what a token is made of, what it takes to learn, and where tokens of no patch stand."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from vit_walkthrough.exercises.examine import beside, examine

# ------------------------------------------------------------------------------------------------ what is learned


def _learned(height: int, width: int, patch_size: int, channels: int, dim: int) -> int:
    count = 0
    for _ in range(dim):
        for _ in range(channels):
            count += patch_size * patch_size  # a column of E, for each channel its square
        count += 1  # the number that the bias adds
        count += 1  # the number of the class token
    return count


def check_count_learned(yours: Callable, seed: int = 0) -> None:
    """yours(height, width, patch_size, channels, dim): how many numbers are learned to make the tokens, those of the
    patches and the class token, before positions."""
    numbers = np.random.default_rng(seed)
    sizes = [(4, 6, 2, 1, 3), (224, 384, 16, 3, 768)]
    for _ in range(2):
        rows, cols = numbers.choice(np.arange(2, 12), 2, replace=False).tolist()
        side, channels, dim = (int(numbers.integers(low, high)) for low, high in ((3, 17), (2, 14), (5, 100)))
        sizes.append((rows * side, cols * side, side, channels, dim))
    names = ("height", "width", "patch_size", "channels", "dim")
    cases = [dict(zip(names, case, strict=True)) for case in sizes]

    mistakes = {
        "dim numbers are missing: the bias has dim numbers, and so has the class token": (
            lambda h, w, p, c, d: p * p * c * d + d
        ),
        "That is the matrix alone: its bias has dim numbers, and so has the class token": (
            lambda h, w, p, c, d: p * p * c * d
        ),
        "The patch is a square: it has patch_size * patch_size pixels in each channel": (
            lambda h, w, p, c, d: p * c * d + 2 * d
        ),
        "The channels are missing: a patch is flattened with all its channels": lambda h, w, p, c, d: p * p * d + 2 * d,
        "You counted a matrix for each patch. All patches share one, so the size of the image does not matter": (
            lambda h, w, p, c, d: (h // p) * (w // p) * p * p * c * d + 2 * d
        ),
        "You counted a bias for each patch. All patches share one": (
            lambda h, w, p, c, d: p * p * c * d + (h // p) * (w // p) * d + d
        ),
        "You counted a matrix and a bias for each patch. All patches share one of each": (
            lambda h, w, p, c, d: (h // p) * (w // p) * (p * p * c * d + d) + d
        ),
        "You counted positions too: they come in notebook 03": (
            lambda h, w, p, c, d: p * p * c * d + 2 * d + ((h // p) * (w // p) + 1) * d
        ),
        "You counted all the tokens as learned. Only the class token is; those of the patches are computed from the "
        "image": lambda h, w, p, c, d: p * p * c * d + d + ((h // p) * (w // p) + 1) * d,
        "You counted the bias or the class token as one number: each is a vector of dim numbers": (
            lambda h, w, p, c, d: p * p * c * d + d + 1
        ),
        "You counted a bias or a class token with a number for every pixel, channels * patch_size * patch_size. Both "
        "are of the size of a token: dim numbers each": (lambda h, w, p, c, d: p * p * c * d + p * p * c + d),
        "You counted the numbers of the tokens. What is learned stays the same, however many patches come": (
            lambda h, w, p, c, d: ((h // p) * (w // p) + 1) * d
        ),
    }
    examine(
        yours,
        _learned,
        cases,
        mistakes,
        holds="One matrix, one bias and one class token serve any number of patches.",
    )


# ------------------------------------------------------------------------------------------------ more tokens than one


def _with_registers(tokens: np.ndarray, registers: np.ndarray) -> np.ndarray:
    batch, count, dim = tokens.shape
    longer = np.zeros((batch, count + len(registers), dim))
    for image in range(batch):
        longer[image, 0] = tokens[image, 0]
        for number, register in enumerate(registers):
            longer[image, 1 + number] = register
        for patch in range(count - 1):
            longer[image, 1 + len(registers) + patch] = tokens[image, 1 + patch]
    return longer


def _to_all(tokens: np.ndarray, registers: np.ndarray) -> np.ndarray:
    return np.broadcast_to(registers, (len(tokens), *registers.shape))


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1)


def _dealt_out(tokens: np.ndarray, registers: np.ndarray) -> np.ndarray:
    dealt = registers.repeat(len(tokens), 0).reshape(len(tokens), *registers.shape)
    return _joined(tokens[:, :1], dealt, tokens[:, 1:])


def check_add_registers(yours: Callable, seed: int = 0) -> None:
    """yours(tokens, registers): tokens (batch tokens dim), the class token at place 0, with registers
    (registers dim), the same for every image, put between it and the patches."""
    numbers = torch.Generator().manual_seed(seed)
    small = torch.tensor([[[9, -9], [1, 1], [2, 2], [3, 3]]]).float()
    cases = [dict(tokens=small, registers=torch.tensor([[50.0, 51.0], [60.0, 61.0]]))]
    for batch, count, extra, dim in ((2, 6, 3, 5), (3, 8, 4, 2)):
        tokens = torch.rand(batch, count, dim, generator=numbers)
        cases.append(dict(tokens=tokens, registers=10 + torch.rand(extra, dim, generator=numbers)))

    mistakes = {
        "The registers stand before the class token. Place 0 must stay its own: there the answer is read": (
            lambda t, r: _joined(_to_all(t, r), t)
        ),
        "The registers stand behind the patches; put them between the class token and the patches": (
            lambda t, r: _joined(t, _to_all(t, r))
        ),
        "The registers took the places of the first patches, which are gone. Put them between, so that the sequence "
        "gets longer": lambda t, r: _joined(t[:, :1], _to_all(t, r), t[:, 1 + len(r) :]),
        "The registers were added to the first patches. They are tokens of their own, and the sequence gets longer": (
            lambda t, r: _joined(t[:, :1], t[:, 1 : 1 + len(r)] + r, t[:, 1 + len(r) :])
        ),
        "The class token is gone: it stays at place 0, before the registers": (
            lambda t, r: _joined(_to_all(t, r), t[:, 1:])
        ),
        "The class token stands there twice, before the registers and after them. The patches begin at tokens[:, 1:]": (
            lambda t, r: _joined(t[:, :1], _to_all(t, r), t)
        ),
        "The registers stand in opposite order: register 0 comes first": (
            lambda t, r: _with_registers(t, r[::-1])
        ),
        "The images got different registers, dealt out like cards. Every image gets all of them, in the same order": (
            _dealt_out
        ),
    }  # fmt: skip
    examine(
        yours,
        _with_registers,
        cases,
        mistakes,
        axes="batch tokens dim",
        diagnose=[_about_places],
        holds="Class token, registers, patches: the class token is still at place 0, and no patch is lost.",
    )


def _about_places(case: dict, expected: np.ndarray, got: np.ndarray) -> str | None:
    """Which of the three parts is wrong, where no likely mistake fits."""
    wrong = (~np.isclose(expected, got)).any((0, 2))
    first, count = int(np.argmax(wrong)), len(case["registers"])
    if first == 0:
        return "Something other than the class token stands at place 0"
    if first <= count:
        return f"Something other than register {first - 1} stands at place {first}"
    return f"Something other than patch {first - count - 1} stands at place {first}"


# ------------------------------------------------------------------------------------------------ another's weights


def _embed(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    batch, channels, height, width = images.shape
    side, dim = len(kernel), len(bias)
    rows, cols = height // side, width // side
    tokens = np.zeros((batch, rows * cols, dim))
    for row in range(rows):
        for col in range(cols):
            total = np.tile(bias, (batch, 1))
            for channel in range(channels):
                for ph in range(side):
                    for pw in range(side):
                        pixel = images[:, channel, row * side + ph, col * side + pw]
                        total += pixel[:, None] * kernel[ph, pw, channel]
            tokens[:, row * cols + col] = total
    return tokens


def _embed_with(turn: Callable, images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """With a kernel that was turned into (ph pw channels dim) in some other way."""
    return _embed(images, turn(kernel), bias)


def _poured(kernel: np.ndarray) -> np.ndarray:
    """Read as if its numbers lay in the order (dim channels ph pw)."""
    return kernel.reshape(kernel.shape[::-1]).transpose(2, 3, 1, 0)


def _kernel_unturned(kernel: np.ndarray) -> np.ndarray:
    """Its numbers (ph pw channels) multiplied with pixels in the order (channels ph pw)."""
    side, _, channels, dim = kernel.shape
    return kernel.reshape(channels, side, side, dim).transpose(1, 2, 0, 3)


def _pixels_unturned(kernel: np.ndarray) -> np.ndarray:
    """Its numbers, brought into the order (channels ph pw), multiplied with pixels in the order (ph pw channels)."""
    return kernel.transpose(2, 0, 1, 3).reshape(kernel.shape)


def _by_columns(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    tokens, cols = _embed(images, kernel, bias), images.shape[3] // len(kernel)
    return tokens.reshape(len(images), -1, cols, len(bias)).transpose(0, 2, 1, 3).reshape(tokens.shape)


def _unturned(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    tokens = _embed(images, kernel, bias)
    return tokens.transpose(0, 2, 1).reshape(tokens.shape)


def check_embed(yours: Callable, seed: int = 0) -> None:
    """yours(images, kernel, bias): the tokens (batch patches dim) of images (batch channels height width), by a kernel
    (ph pw channels dim) and a bias (dim)."""
    numbers = torch.Generator().manual_seed(seed)
    picks = torch.zeros(2, 2, 1, 2)
    picks[0, 0, 0, 0] = picks[0, 1, 0, 1] = 1  # upper left, upper right
    of_two = torch.zeros(2, 2, 2, 2)
    of_two[0, 0, 0, 0] = of_two[0, 1, 1, 1] = 1  # upper left of channel 0, upper right of channel 1
    cases = [
        dict(images=torch.arange(12.0).reshape(1, 1, 2, 6), kernel=picks, bias=torch.tensor([10.0, 20.0])),
        dict(images=torch.arange(48.0).reshape(1, 2, 4, 6), kernel=of_two, bias=torch.tensor([100.0, 200.0])),
    ]
    for batch, rows, cols, channels, side, dim in ((2, 2, 1, 3, 2, 4), (1, 1, 2, 2, 3, 5)):
        images = torch.rand(batch, channels, rows * side, cols * side, generator=numbers)
        kernel = torch.randn(side, side, channels, dim, generator=numbers)
        cases.append(dict(images=images, kernel=kernel, bias=torch.randn(dim, generator=numbers)))

    mistakes = {
        "The kernel was only reshaped: its numbers still lie in the order (ph pw channels dim). Bring its axes into "
        "another order, by permute or rearrange": partial(_embed_with, _poured),
        "The pixels of a patch have the channels first, those of the kernel last. Bring one of the two into the order "
        "of the other": partial(_embed_with, _kernel_unturned),
        "The pixels of a patch have the channels last, those of your kernel first. Both must have the same order": (
            partial(_embed_with, _pixels_unturned)
        ),
        "The kernel lies mirrored on its diagonal: ph (down) and pw (across) are exchanged": (
            partial(_embed_with, lambda kernel: kernel.transpose(1, 0, 2, 3))
        ),
        "The kernel is upside down: its first row belongs to the first row of the patch": (
            partial(_embed_with, lambda kernel: kernel[::-1])
        ),
        "The bias is missing: it is added to every token": lambda x, k, b: _embed(x, k, 0 * b),
        "The bias was added twice": lambda x, k, b: _embed(x, k, 2 * b),
        "The patches come column by column; reading order is row by row": _by_columns,
        "The result was only reshaped: a convolution gives (batch dim rows cols), and dim must go last before rows and "
        "cols are joined": _unturned,
    }
    examine(
        yours,
        _embed,
        cases,
        mistakes,
        axes="batch patches dim",
        holds="The same tokens as Google's code makes of these weights, though the kernel lies in another order.",
        picture=lambda expected, got: beside(expected[0], got[0]),
    )
