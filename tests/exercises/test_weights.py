"""Notebook 10."""

import re

import numpy as np
import pytest
import torch
from einops import rearrange, repeat

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough import VisionTransformer, ViTConfig
from vit_walkthrough.exercises import check_folded, check_name, check_projection

# ------------------------------------------------------------------------------------------------ right

PARTS = {
    "cls_token": "class_token.token",
    "pos_embedding": "position_embedding.positions",
    "to_patch_embedding.2": "patch_embedding.projection",
    "transformer.norm": "norm",
    "mlp_head": "head.logits",
    "0.norm": "norm_1",
    "0.to_qkv": "attention.qkv",
    "0.to_out.0": "attention.projection",
    "1.net.0": "norm_2",
    "1.net.1": "mlp.expand",
    "1.net.4": "mlp.contract",
}


def name_by_table(theirs):
    head, dot, kind = theirs.rpartition(".")
    if not dot:
        return PARTS[theirs]
    block = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", head)
    return f"blocks.{block[1]}.{PARTS[block[2]]}.{kind}" if block else f"{PARTS[head]}.{kind}"


def name_by_replacing(theirs):
    """One replacement after another; the dots keep a block's number apart from the others."""
    theirs = theirs.replace("transformer.norm", "norm").replace("transformer.layers", "blocks")
    theirs = theirs.replace("cls_token", "class_token.token").replace("pos_embedding", "position_embedding.positions")
    theirs = theirs.replace("to_patch_embedding.2", "patch_embedding.projection").replace("mlp_head", "head.logits")
    theirs = theirs.replace("0.norm.", "norm_1.").replace("0.to_qkv", "attention.qkv")
    theirs = theirs.replace("0.to_out.0", "attention.projection").replace("1.net.0", "norm_2")
    return theirs.replace("1.net.1", "mlp.expand").replace("1.net.4", "mlp.contract")


def name_by_branches(theirs):
    match theirs.split("."):
        case ["cls_token"]:
            return "class_token.token"
        case ["pos_embedding"]:
            return "position_embedding.positions"
        case ["to_patch_embedding", "2", kind]:
            return f"patch_embedding.projection.{kind}"
        case ["transformer", "norm", kind]:
            return f"norm.{kind}"
        case ["mlp_head", kind]:
            return f"head.logits.{kind}"
        case ["transformer", "layers", block, "0", "norm", kind]:
            return f"blocks.{block}.norm_1.{kind}"
        case ["transformer", "layers", block, "0", part, *_, kind]:
            return f"blocks.{block}.attention.{dict(to_qkv='qkv', to_out='projection')[part]}.{kind}"
        case ["transformer", "layers", block, "1", "net", place, kind]:
            return f"blocks.{block}.{ {'0': 'norm_2', '1': 'mlp.expand', '4': 'mlp.contract'}[place] }.{kind}"


def projection_in_loops(kernel):
    heads, head_dim, dim = kernel.shape
    weight = torch.empty(dim, dim)
    for head in range(heads):
        for place in range(head_dim):
            weight[:, head * head_dim + place] = kernel[head, place]
    return weight


def folded_by_einops(weight, bias, mean, std):
    cut = rearrange(weight, "dim (channels area) -> dim channels area", channels=3)
    folded = cut / std[:, None]
    return folded.flatten(1), bias - torch.einsum("dca, c -> d", folded, mean)


def folded_by_repeating(weight, bias, mean, std):
    mean, std = (repeat(each, "channels -> (channels area)", area=weight.shape[1] // 3) for each in (mean, std))
    return weight / std, bias - weight @ (mean / std)


def folded_by_asking(weight, bias, mean, std):
    """Nothing but what the old layer answers: to a black picture, and to one with a single bright pixel."""
    pixels = weight.shape[1]
    mean, std = mean.repeat_interleave(pixels // 3), std.repeat_interleave(pixels // 3)

    def ask(pictures):
        return ((pictures - mean) / std).double() @ weight.double().T + bias

    black = ask(torch.zeros(1, pixels))
    return (ask(torch.eye(pixels)) - black).T.float(), black[0].float()


def folded_in_loops(weight, bias, mean, std):
    folded, shifted = weight.clone(), bias.clone()
    area = weight.shape[1] // 3
    for channel in range(3):
        part = slice(channel * area, (channel + 1) * area)
        folded[:, part] = weight[:, part] / std[channel]
        shifted -= mean[channel] * folded[:, part].sum(1)
    return folded, shifted


RIGHT = {
    check_name: {"table": name_by_table, "replacing": name_by_replacing, "branches": name_by_branches},
    check_projection: {
        "loops": projection_in_loops,
        "einops": lambda kernel: rearrange(kernel, "heads head_dim dim -> dim (heads head_dim)"),
        "flatten and transpose": lambda kernel: kernel.flatten(0, 1).T,
        "permute": lambda kernel: kernel.permute(2, 0, 1).reshape(kernel.shape[-1], -1),
        "einsum": lambda kernel: torch.einsum("hpo, hpi -> oi", kernel, torch.eye(kernel.shape[2]).view(*kernel.shape)),
    },
    check_folded: {
        "einops": folded_by_einops,
        "repeating": folded_by_repeating,
        "asking": folded_by_asking,
        "loops": folded_in_loops,
    },
}
# ------------------------------------------------------------------------------------------------ wrong


def renamed(*changes):
    """The right names, then one regular expression after another."""

    def name(theirs):
        ours = name_by_table(theirs)
        for pattern, other in changes:
            ours = re.sub(pattern, other, ours)
        return ours

    return name


def swapped(one, other):
    return renamed((one, "?"), (other, one), (r"\?", other))


def fold(factor=lambda mean, std: 1 / std, taken=lambda mean, std: mean / std, keep=1.0, order="channels area"):
    """Folded with one thing or another done wrong."""

    def folded(weight, bias, mean, std):
        def each(numbers):
            return repeat(numbers, f"channels -> ({order})", area=weight.shape[1] // 3)

        return weight * each(factor(mean, std)), keep * bias - weight @ each(taken(mean, std))

    return folded


WRONG = {
    check_name: {
        "norms": (swapped("norm_1", "norm_2"), "norm_1 and norm_2 are exchanged"),
        "attention": (swapped("attention.qkv", "attention.projection"), "qkv and projection are exchanged"),
        "mlp": (swapped("expand", "contract"), "expand and contract are exchanged"),
        "from 1": (
            renamed((r"(?<=blocks\.)\d+", lambda found: str(int(found[0]) + 1))),
            "The blocks are one late",
        ),
        "from -1": (
            renamed((r"(?<=blocks\.)\d+", lambda found: str(int(found[0]) - 1))),
            "The blocks are one early",
        ),
        "first digit": (renamed((r"blocks\.(\d)\d*", r"blocks.\1")), "only the first digit was read"),
        "last digit": (renamed((r"blocks\.\d*(\d)", r"blocks.\1")), "only the last digit was read"),
        "block 0": (renamed((r"blocks\.\d+", "blocks.0")), "All is block 0"),
        "weights": (renamed((r"bias", "weight")), "All is called weight"),
        "final norm": (renamed((r"^norm\.", "blocks.11.norm_2.")), "The norm after the last block was taken"),
        "unchanged": (lambda theirs: theirs, "cls_token came back as it was"),
        "half": (
            lambda theirs: theirs.replace("transformer.layers", "blocks"),
            "cls_token came back as it was",
        ),
        "part": (renamed((r"mlp\.contract", "1.net.4")), "Something of their name is left over in blocks."),
        "kind": (renamed((r"weight$", "kernel")), "The last part of to_patch_embedding.2.weight stays what it is"),
        "reversed": (
            renamed((r"(?<=blocks\.)\d+", lambda found: str(40 - int(found[0])))),
            "went to another block",
        ),
        "nothing": (lambda theirs: "", "cls_token became nothing"),
    },
    check_projection: {
        "not transposed": (lambda kernel: kernel.flatten(0, 1), "Not transposed: theirs is (in, out)"),
        "heads last": (
            lambda kernel: rearrange(kernel, "heads head_dim dim -> dim (head_dim heads)"),
            "The columns are mixed up",
        ),
        "both": (
            lambda kernel: rearrange(kernel, "heads head_dim dim -> (head_dim heads) dim"),
            "Not transposed, and heads and head_dim",
        ),
        "each head": (
            lambda kernel: kernel.transpose(1, 2).reshape(kernel.shape[2], -1),
            "Each head was transposed by itself",
        ),
        "joined with dim": (
            lambda kernel: rearrange(kernel, "heads head_dim dim -> head_dim (heads dim)"),
            "returned the shape (3, 12), expected (6, 6) (dim dim)",
        ),
        "as it was": (lambda kernel: kernel, "returned the shape (2, 3, 6), expected (6, 6) (dim dim)"),
        "backwards": (
            lambda kernel: kernel.flip(0).flatten(0, 1).T,
            "returned the right shape, but wrong numbers",
        ),
    },
    check_folded: {
        "times std": (fold(factor=lambda mean, std: std), "The weight was multiplied by std"),
        "all times std": (
            fold(factor=lambda mean, std: std, taken=lambda mean, std: mean * std),
            "The weight and the mean were multiplied by std",
        ),
        "sign": (fold(taken=lambda mean, std: -mean / std), "The mean went into the bias with the wrong sign"),
        "mean not divided": (fold(taken=lambda mean, std: mean), "In the bias the mean was not divided by std"),
        "divided twice": (fold(taken=lambda mean, std: mean / std.square()), "In the bias std divides twice"),
        "mean of the pixels": (
            lambda weight, bias, mean, std: (
                folded_in_loops(weight, bias, mean, std)[0],
                bias - torch.mean(weight * repeat(mean / std, "c -> (c a)", a=weight.shape[1] // 3), 1),
            ),
            "In the bias the mean over the pixels was taken",
        ),
        "no weight, pixels": (
            lambda weight, bias, mean, std: (
                folded_in_loops(weight, bias, mean, std)[0],
                bias - weight.shape[1] // 3 * (mean / std).sum(),
            ),
            "From the bias went mean / std, summed over the pixels",
        ),
        "no weight, channels": (
            lambda weight, bias, mean, std: (folded_in_loops(weight, bias, mean, std)[0], bias - (mean / std).sum()),
            "From the bias went mean / std, summed over the channels",
        ),
        "mean from the weight": (
            lambda weight, bias, mean, std: (
                (weight - repeat(mean, "c -> (c a)", a=weight.shape[1] // 3))
                / repeat(std, "c -> (c a)", a=weight.shape[1] // 3),
                bias,
            ),
            "The mean was taken from the weight",
        ),
        "bias alone wrong": (fold(keep=2.0), "The weight is right, the bias is not"),
        "weight alone wrong": (fold(factor=lambda mean, std: 2 / std), "The bias is right, the weight is not"),
        "bias as it was": (fold(taken=lambda mean, std: 0 * mean), "The bias is as it was"),
        "bias lost": (fold(keep=0.0), "The old bias is lost"),
        "weight as it was": (fold(factor=lambda mean, std: 1 + 0 * std), "The weight is as it was"),
        "channels last": (fold(order="area channels"), "mean and std were laid out with the channels last"),
        "red for all": (
            fold(lambda mean, std: 1 / std[[0, 0, 0]], lambda mean, std: (mean / std)[[0, 0, 0]]),
            "One channel's mean and std",
        ),
        "mean of the channels": (
            fold(
                lambda mean, std: 1 / std.mean().expand(3),
                lambda mean, std: (mean.mean() / std.mean()).expand(3),
            ),
            "The mean over the channels was used for all",
        ),
        "weight alone": (
            lambda weight, bias, mean, std: weight,
            "expected two tensors, weight and bias",
        ),
        "exchanged": (
            lambda weight, bias, mean, std: (bias, weight),
            "returned weight as (2,), expected (2, 3); first weight, then bias",
        ),
        "nothing done": (
            lambda weight, bias, mean, std: (weight, bias),
            "The weight and the bias are as they were",
        ),
    },
}


def test_the_names_asked_for_are_all_of_a_model(capsys):
    asked = []

    def name(theirs):
        asked.append(theirs)
        return name_by_table(theirs)

    check_name(name)
    ours = VisionTransformer(ViTConfig(8, 4, dim=8, depth=1, heads=2, hidden=8, classes=2)).state_dict()
    assert {re.sub(r"blocks\.\d+", "blocks.0", name_by_table(theirs)) for theirs in asked} == set(ours) - {
        "blocks.0.attention.qkv.bias"  # theirs has none
    }
    assert capsys.readouterr().out.startswith("✓")


def test_two_dots_are_a_hole_too(capsys):
    check_folded(lambda weight, bias, mean, std: ...)
    assert "is still a hole" in capsys.readouterr().out


def test_weight_and_bias_are_shown_side_by_side():
    with pytest.raises(AssertionError) as caught:
        check_folded(fold(taken=lambda mean, std: 0 * mean))
    said = str(caught.value)
    assert "expected (dim, pixels and after them the bias)" in said
    for row in np.array2string(np.array([[2, 8, 24, -11], [8, 20, 48, -25]])).splitlines():
        assert row in said
