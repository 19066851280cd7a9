"""What takes a step: AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the rest."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def adamw(model: nn.Module, lr: float = 3e-3, weight_decay: float = 0.1, betas=(0.9, 0.95)) -> Optimizer:
    """AdamW for all parameters. Its second moment remembers 20 steps, not 1,000: a run has only a few thousand."""
    return AdamW(model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def muon(model: nn.Module, lr: float = 4e-3, weight_decay: float = 0.5) -> Optimizer:
    """Muon for the matrices of a model's blocks, at 2.5 times the rate, and AdamW for all other parameters. Their decay
    is the same: Muon's weight_decay is smaller by as much as its rate is larger."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if parameter.ndim == 2 and "blocks" in name.split(".") else others).append(parameter)
    groups = [dict(params=others)]
    if matrices:
        groups.append(dict(params=matrices, lr=2.5 * lr, weight_decay=weight_decay / 2.5, orthogonal=True))
    return Muon(groups, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)


class Muon(AdamW):
    """AdamW, but matrices of groups with orthogonal=True step by the orthogonal matrix nearest to their mean gradient.

    A gradient has a few strong directions and many weak ones. In this step all count the same. Momentum is betas[0].

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); step sizes as in Liu et al. 2025 (arXiv 2502.16982).
    Differs: torch.optim.Muon takes the same steps in 16 bits, matrix by matrix. Here matrices of one shape are taken
    together, in 32 bits: on a processor this needs a tenth of the time.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """One step. closure: only there because every optimizer of torch has it; gradients come before the step."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"] if group.get("orthogonal") else ():
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                self._step(matrices, group["lr"], group["weight_decay"], group["betas"][0])
        return super().step(closure)

    def _step(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> None:
        means = []
        for matrix in matrices:
            state = self.state[matrix]
            if not state:  # under AdamW's names, so that its state_dict and load_state_dict serve
                state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(matrix)}
            state["exp_avg"].lerp_(matrix.grad, 1 - momentum)
            means.append(matrix.grad.lerp(state["exp_avg"], momentum))  # Nesterov's: one step ahead
            matrix.grad = None  # so that AdamW leaves it alone
        scale = 0.2 * max(matrices[0].shape) ** 0.5  # the step's mean square is that of AdamW's
        for matrix, direction in zip(matrices, orthogonal(torch.stack(means)), strict=True):
            matrix.mul_(1 - lr * weight_decay).sub_(direction, alpha=lr * scale)


def orthogonal(matrices: Float[Tensor, "count rows cols"]) -> Float[Tensor, "count rows cols"]:
    """Matrices with the same singular vectors, and all singular values near 1 (0.7 to 1.2): five times x becomes
    a x + b x³ + c x⁵ of its singular values, by products alone. Source: as Muon."""
    tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if tall else matrices
    result = result / result.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = result @ result.mT
        result = 3.4445 * result + (-4.7750 * square + 2.0315 * square @ square) @ result
    return result.mT if tall else result
