"""Notebook 00."""

import re

import pytest
import torch
from einops import rearrange, reduce

from tests.exercises.trials import test_in_time, test_right_answers_pass, test_wrong_answers_get_their_sentence  # noqa: F401
from vit_walkthrough.exercises import check_count_tokens, check_most_attended, check_probabilities


def shares_in_loops(logits):
    shares = torch.empty_like(logits)
    for image in range(logits.shape[0]):
        exponentials = (logits[image] - logits[image].max()).exp()
        for label in range(logits.shape[1]):
            shares[image, label] = exponentials[label] / exponentials.sum()
    return shares


def shares_over(dim):
    def shares(logits):
        shifted = (logits - logits.max()).exp()
        return shifted / shifted.sum(dim)

    return shares


def most_in_loops(attention):
    answers = []
    for image in attention[-1]:
        row = image.mean(0)[0]
        best = max(range(1, len(row)), key=lambda place: row[place].item())
        answers.append(best - 1)
    return torch.tensor(answers)


def most_by_einops(attention):
    return reduce(attention[-1], "b h q k -> b q k", "mean")[:, 0, 1:].argmax(-1)


def most_by_topk(attention):
    looks = rearrange(attention, "l b h q k -> l q b h k")[-1, 0].sum(1)
    looks[:, 0] = -1
    return looks.topk(1).indices.squeeze(1) - 1


RIGHT = {
    check_count_tokens: {
        "arithmetic": lambda height, width, patch_size: height // patch_size * (width // patch_size) + 1,
        "area": lambda height, width, patch_size: 1 + height * width // patch_size**2,
        "ranges": lambda h, w, p: sum(1 for _ in range(0, h, p) for _ in range(0, w, p)) + 1,
        "tensor": lambda h, w, p: torch.tensor([h, w]).div(p, rounding_mode="floor").prod() + 1,
    },
    check_probabilities: {
        "loops": shares_in_loops,
        "torch": lambda logits: torch.softmax(logits, dim=1),
        "logsumexp": lambda logits: (logits - logits.logsumexp(-1, keepdim=True)).exp(),
        "einsum": lambda x: torch.einsum(
            "bc,b->bc", (x - x.amax(1, keepdim=True)).exp(), 1 / (x - x.amax(1, keepdim=True)).exp().sum(1)
        ),
        "pairs": lambda x: 1 / (x[:, None, :] - x[:, :, None]).exp().sum(2),  # 1 / (1 + the others over it)
    },
    check_most_attended: {
        "loops": most_in_loops,
        "einops": most_by_einops,
        "topk": most_by_topk,
        "indexing": lambda attention: attention[-1, :, :, 0, 1:].mean(1).argmax(1),
        "einsum": lambda attention: torch.einsum("bhk->bk", attention[-1, :, :, 0])[:, 1:].argmax(1),
    },
}

WRONG = {
    check_count_tokens: {
        "no class token": (lambda h, w, p: (h // p) * (w // p), "Those are the patches alone"),
        "square from the height": (lambda h, w, p: (h // p) ** 2 + 1, "cols come from the width"),
        "square from the width": (lambda h, w, p: (w // p) ** 2 + 1, "rows come from the height"),
        "side once": (lambda h, w, p: h * w // p + 1, "The area was divided by the side"),
        "sum": (lambda h, w, p: h // p + w // p + 1, "Those are rows + cols"),
        "float": (lambda h, w, p: h * w / p**2 + 1, "/ makes floats where // is meant"),
    },
    check_probabilities: {
        "over the batch": (lambda x: torch.softmax(x, 0), "Each column sums to 1"),
        "over the batch, naive": (lambda x: x.exp() / x.exp().sum(0), "Each column sums to 1"),
        "over all, naive": (lambda x: x.exp() / x.exp().sum(), "The whole table sums to 1"),
        "logarithms, naive": (lambda x: (x.exp() / x.exp().sum(1, True)).log(), "None is above 0"),
        "over all": (lambda x: torch.softmax(x.flatten(), 0).view_as(x), "The whole table sums to 1"),
        "exponentials": (torch.exp, "No row sums to 1: those are the exponentials alone"),
        "maximum": (lambda x: x.exp() / x.exp().amax(1, True), "The largest of each row is 1"),
        "maximum, shifted": (lambda x: (x - x.amax(1, True)).exp(), "The largest of each row is 1"),
        "plain shares": (lambda x: torch.nn.functional.normalize(x, p=1) * x.abs().sum(1, True) / x.sum(1, True),
                         "Those are the shares of the logits themselves"),
        "sigmoid": (torch.sigmoid, "Each class was judged by itself, by a sigmoid"),
        "logarithms": (lambda x: torch.log_softmax(x, 1), "None is above 0: those are the logarithms"),
        "winner": (lambda x: torch.nn.functional.one_hot(x.argmax(1), x.shape[1]).float(), "The largest takes all"),
        "naive": (lambda x: x.exp() / x.exp().sum(1, True), "The exponential of 1,000 is larger than any number"),
        "naive, said": (lambda x: x.exp() / x.exp().sum(1, True), "returned NaN, in your line"),
        "one shift for all": (lambda x: (x - x.max()).exp() / (x - x.max()).exp().sum(1, True),
                              "You subtracted the largest logit of the whole batch"),
        "the mean": (lambda x: (x - x.mean(1, True)).exp() / (x - x.mean(1, True)).exp().sum(1, True),
                     "You subtracted the mean of each row"),
        "cut off": (lambda x: x.clamp(max=80).exp() / x.clamp(max=80).exp().sum(1, True),
                    "You cut the large logits off"),
        "cut off at both ends": (lambda x: x.clamp(-50, 50).softmax(1), "You cut the logits off at both ends"),
        "squares": (lambda x: x**2 / (x**2).sum(1, True), "Every row sums to 1, but the shares are others"),
        "softmin": (lambda x: torch.softmax(-x, 1), "Every row sums to 1, but the shares are others"),
        "half": (lambda x: torch.softmax(x, 1) / 2, "Row 0 sums to 0.5: the probabilities of one image must sum to 1"),
        "negative": (lambda x: 2 * torch.softmax(x, 1) - 1, "There is a negative number among them"),
        "broadcast": (shares_over(1), "raised RuntimeError"),
    },
    check_most_attended: {
        "places": (lambda a: a[-1, :, :, 0, 1:].mean(1).argmax(1) + 1, "Each is one too many"),
        "with itself": (lambda a: a[-1, :, :, 0].mean(1).argmax(1), "All are 0, the class token's own place"),
        "with itself, less 1": (lambda a: a[-1, :, :, 0].mean(1).argmax(1) - 1, "All are -1"),
        "who looks at it": (lambda a: a[-1, :, :, 1:, 0].mean(1).argmax(1), "Those are the patches that look at"),
        "first block": (lambda a: a[0, :, :, 0, 1:].mean(1).argmax(1), "Those are of the first block"),
        "all blocks": (lambda a: a[:, :, :, 0, 1:].mean((0, 2)).argmax(1), "Those are of all blocks together"),
        "first head": (lambda a: a[-1, :, 0, 0, 1:].argmax(1), "Those are of one head alone, the first"),
        "last head": (lambda a: a[-1, :, -1, 0, 1:].argmax(1), "Those are of one head alone, the last"),
        "any head": (lambda a: a[-1, :, :, 0, 1:].amax(1).argmax(1), "Those got the largest weight of any head"),
        "all queries": (lambda a: a[-1, :, :, :, 1:].mean((1, 2)).argmax(1), "looked at most by all tokens together"),
        "patch 0": (lambda a: a[-1, :, :, 1, 1:].mean(1).argmax(1), "Those are looked at most by patch 0"),
        "weights": (lambda a: a[-1, :, :, 0, 1:].mean(1).amax(1), "Those are the weights, not the places. max"),
        "weights with itself": (lambda a: a[-1, :, :, 0].mean(1).max(-1).values,
                                "Those are the weights, not the places. max"),
        "whole weights": (lambda a: a[-1, :, :, 0].mean(1).max(-1).values.long(),
                          "Those are the weights, not the places, and"),
        "whole weights of patches": (lambda a: a[-1, :, :, 0, 1:].mean(1).amax(-1).long(),
                                     "Those are the weights, not the places, and"),
        "floats": (lambda a: a[-1, :, :, 0, 1:].mean(1).argmax(1).float(),
                   "returned torch.float32, expected torch.int64"),
        "vote": (lambda a: a[-1, :, :, 0, 1:].argmax(-1).mode(1).values, "Every head had one vote"),
        "every head": (lambda a: a[-1, :, :, 0, 1:].argmax(2), "returned the shape (1, 1), expected (1,) (batch)"),
    },
}  # fmt: skip


def test_what_overflows_is_said_with_the_line_where_it_happens():
    def probabilities(logits):
        exponentials = logits.exp()
        return exponentials / exponentials.sum(1, keepdim=True)

    with pytest.raises(AssertionError) as caught:
        check_probabilities(probabilities)
    said = str(caught.value)
    assert re.match(r"probabilities returned NaN, in your line \d+, `return exp.+`\. The exponential of 1,000 ", said)
    assert "The smallest case that fails: probabilities(logits of shape (2, 2))" in said
