"""optimizers.py: Muon beside torch's own and beside the singular value decomposition, AdamW for the rest."""

import copy

import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.train.optimizers import adamw, muon, orthogonal


@pytest.mark.parametrize(("rows", "cols"), [(24, 24), (8, 40), (40, 8)])
def test_orthogonal_matrices_keep_the_singular_vectors_and_have_singular_values_near_1(rows, cols):
    matrices = torch.randn(3, rows, cols) * torch.tensor([1e-3, 1, 1e3])[:, None, None]
    matrices[0] += 0.01  # one strong direction
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    seen = left.mT @ orthogonal(matrices) @ right.mT
    found = seen.diagonal(dim1=1, dim2=2)
    assert_close(seen, torch.diag_embed(found), rtol=0, atol=1e-3)
    weak = values < 0.03 * values.norm(dim=1, keepdim=True)  # five rounds lift these only part of the way
    assert found[~weak].min() > 0.65
    assert found.max() < 1.25
    assert not orthogonal(torch.zeros(2, rows, cols)).any()


def test_a_matrix_of_a_block_steps_as_torchs_muon_and_everything_else_as_adamw(model):
    torchs, plain, before = (copy.deepcopy(model) for _ in range(3))
    matrices = [parameter for parameter in torchs.blocks.parameters() if parameter.ndim == 2]
    assert len(matrices) == 4 * model.config.depth
    settings = dict(momentum=0.9, nesterov=True, adjust_lr_fn="match_rms_adamw")
    theirs = torch.optim.Muon(matrices, lr=0.025, weight_decay=0.08, **settings)
    optimizers = muon(model, lr=0.01, weight_decay=0.2), theirs, adamw(plain, lr=0.01, weight_decay=0.2)
    for _ in range(4):
        for parameters in zip(*(each.parameters() for each in (model, torchs, plain)), strict=True):
            gradient = torch.randn(parameters[0].shape) + 5  # strong in one direction, as real ones are
            for parameter in parameters:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:  # torch's has 16 bits
            step = (parameter - before.get_parameter(name)).norm()
            assert (parameter - torchs.get_parameter(name)).norm() < 0.05 * step
        else:
            assert torch.equal(parameter, plain.get_parameter(name))
