"""Notebook 00: right answers, written in other ways than the reference; and what the remarks are for."""

import torch
from einops import reduce

from vit_walkthrough.exercises import check_count_tokens, check_most_attended, check_probabilities


def shares_in_loops(logits):
    shares = torch.empty_like(logits)
    for image in range(logits.shape[0]):
        exponentials = (logits[image] - logits[image].max()).exp()
        for label in range(logits.shape[1]):
            shares[image, label] = exponentials[label] / exponentials.sum()
    return shares


def most_in_loops(attention):
    answers = []
    for image in attention[-1]:
        row = image.mean(0)[0]
        best = max(range(1, len(row)), key=lambda place: row[place].item())
        answers.append(best - 1)
    return torch.tensor(answers)


RIGHT = {
    check_count_tokens: [
        lambda height, width, p: sum(1 for _ in range(0, height, p) for _ in range(0, width, p)) + 1,
        lambda *sizes: torch.tensor(sizes[:2]).div(sizes[2], rounding_mode="floor").prod() + 1,
    ],
    check_probabilities: [shares_in_loops, lambda x: 1 / (x[:, None, :] - x[:, :, None]).exp().sum(2)],
    check_most_attended: [
        most_in_loops,
        lambda attention: reduce(attention[-1:], "1 b h q k -> b q k", "sum")[:, 0, 1:].topk(1).indices[:, 0],
    ],
}

REMARKED = {
    check_probabilities: [
        (lambda logits: 2 * logits.softmax(1) - 1, "There is a negative number"),
        (lambda logits: logits.softmax(1) / 2, "Row 0 sums to 0.5"),
        (lambda logits: (-logits).softmax(1), "Every row sums to 1, but the shares are wrong"),
    ],
    check_most_attended: [
        (lambda attention: attention[-1, :, :, 0, 1:].mean(1).amax(1), "Those are the weights, not the places"),
        (lambda attention: attention[-1, :, :, 0, 1:].mean(1).argmax(1).float(), "dtype torch.float32, expected"),
    ],
}
