"""Every intermediate tensor of a forward pass, by name, taken from outside the model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_walkthrough.model.attention import MultiHeadSelfAttention

# The fused kernel never holds these tensors.
POINTS = ("queries", "keys", "values", "weights", "head_outputs")


class Trace(dict[str, Tensor]):
    """The recorded tensors: a dictionary from name to tensor in the order of the computation.

    A name is the path of the module whose output it is ("blocks.3.attention.weights"), or "<path>.input" for what a
    LayerNorm reads. "input" and "output" are the recorded module's. Dropout has no name.
    """

    def __missing__(self, name: str):
        raise KeyError(f"{name!r} was not recorded; recorded: {', '.join(self) or 'nothing yet'}")

    def __repr__(self) -> str:  # not the numbers
        return f"Trace({', '.join(self)})"

    @property
    def attention(self) -> Float[Tensor, "blocks batch heads queries keys"]:
        """The attention weights of all blocks, the first block first. Raises: KeyError if none were recorded."""
        weights = [tensor for name, tensor in self.items() if name.split(".")[-1] == "weights"]
        if not weights:
            told = "no attention weights were recorded; a pattern that matches them is '*.attention.weights'"
            raise KeyError(f"{told}; recorded: {', '.join(self) or 'nothing'}")
        return torch.stack(weights)


@contextmanager
def record(model: nn.Module, *patterns: str) -> Iterator[Trace]:
    """Record what the model computes in the `with` block. Of several forward passes the last one stays.

    patterns: record only names that match one of them, as "*.attention.weights"; all names if none is given.

    Attention is computed step by step and not by the fused kernel, so that its weights exist; the output is the same to
    rounding (1e-6). The tensors stay in the autograd graph, if there is one. Afterwards, also after an error, the model
    is as it was. Raises: TypeError for a scripted, traced or compiled model.
    """
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise TypeError("a scripted or traced model, or a compiled one, shows nothing; record the original model")
    trace = Trace()

    def wanted(name: str) -> bool:
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    def keep(name: str, tensor: Tensor) -> None:
        trace.pop(name, None)  # a second forward pass is put in order too
        trace[name] = tensor

    def keep_input(name: str, module: nn.Module) -> None:
        def hook(_, inputs, by_keyword):
            keep(name, next(iter((*inputs, *by_keyword.values()))))

        undo.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))

    with ExitStack() as undo:
        if wanted("input"):
            keep_input("input", model)
        for path, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) and path and wanted(f"{path}.input"):
                keep_input(f"{path}.input", module)
            if not isinstance(module, nn.Dropout) and wanted(name := path or "output"):
                undo.enter_context(module.register_forward_hook(lambda _, __, output, name=name: keep(name, output)))
            points = [f"{path}.{point}".lstrip(".") for point in POINTS]
            if isinstance(module, MultiHeadSelfAttention) and module.fused and any(map(wanted, points)):
                module.fused = False
                undo.callback(setattr, module, "fused", True)
        yield trace
