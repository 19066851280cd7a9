"""What the model computes when something in it is changed. living/vit.js has the same options."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from vit_walkthrough.look.explain import config_of, cover
from vit_walkthrough.model.encoder import EncoderBlock
from vit_walkthrough.model.vit import VisionTransformer


@contextmanager
def intervene(
    model: VisionTransformer,
    *,
    order: Sequence[int] | None = None,
    positions: bool = True,
    hidden: Sequence[int] = (),
    covered: Sequence[int] = (),
    silenced: Sequence[tuple[int, int]] = (),
    skipped: Sequence[str] = (),
    alone: Sequence[str] = (),
    unnormed: Sequence[str] = (),
    temperature: float = 1.0,
) -> Iterator[None]:
    """Change what the model computes in the `with` block. Its weights stay, and afterwards it is as it was.

    order: patch number order[i] is put in place i. positions: False adds none. hidden: patches at which no query may
    look. covered: patches painted in the image's median colour. silenced: pairs (block, head) whose output is 0.
    skipped: "blocks.1", "blocks.1.attention" or "blocks.1.mlp", which then adds nothing. alone: "blocks.1.attention"
    or "blocks.1.mlp", whose result is not added to the stream, but replaces it. unnormed: LayerNorms that the tokens
    pass as they are, as "blocks.1.norm_2" or "norm". temperature: divides the queries, and so the scores.

    `with intervene(model, ...), record(model) as trace:` records the changed tensors.

    Raises: ValueError for a patch, head or name that the model lacks, and for a temperature that is not above 0.
    """
    config, modules = config_of(model), dict(model.named_modules())
    blocks = [name for name, module in modules.items() if isinstance(module, EncoderBlock)]
    halves = [f"{block}.{half}" for block in blocks for half in ("attention", "mlp")]
    norms = [name for name, module in modules.items() if isinstance(module, nn.LayerNorm)]
    silenced = [tuple(pair) for pair in silenced]
    for what, given, known in (
        ("hidden", hidden, range(config.patches)),
        ("covered", covered, range(config.patches)),
        ("silenced", silenced, [(block, head) for block in range(config.depth) for head in range(config.heads)]),
        ("skipped", skipped, [*blocks, *halves]),
        ("alone", alone, halves),
        ("unnormed", unnormed, norms),
    ):
        if wrong := [one for one in given if one not in known]:
            choices = f"{known[0]} to {known[-1]}" if isinstance(known, range) else ", ".join(map(str, known))
            raise ValueError(f"{what} has {wrong[0]!r}; choose from {choices}")
    if order is not None and sorted(order) != [*range(config.patches)]:
        raise ValueError(f"order must hold each of the {config.patches} patches once; not {list(order)}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    undo = ExitStack()  # takes away again what was put into the model

    def change(name: str, new: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Put new(output, input) in the place of a module's output."""
        undo.enter_context(modules[name].register_forward_hook(lambda _, inputs, output: new(output, inputs[0])))

    def without(outputs: Tensor, places: list[int], axis: int) -> Tensor:
        return outputs.index_fill(axis, torch.tensor(places, device=outputs.device), 0)

    def seen(weights: Tensor, _) -> Tensor:
        """What a softmax over the other keys would have given."""
        weights = without(weights, [1 + patch for patch in hidden], -1)
        return weights / weights.sum(dim=-1, keepdim=True)

    def passed(tokens: Tensor, *, block: EncoderBlock, path: str) -> Tensor:
        """EncoderBlock.forward in which a half may replace the tokens instead of adding to them."""
        found = block.attention(block.norm_1(tokens))
        tokens = found if f"{path}.attention" in alone else tokens + found
        found = block.mlp(block.norm_2(tokens))
        return found if f"{path}.mlp" in alone else tokens + found

    with undo:
        if covered:
            painted = lambda _, images: cover(*images, covered, config.patch_size)  # noqa: E731
            undo.enter_context(model.register_forward_pre_hook(painted))
        if order is not None:
            change("patch_embedding", lambda tokens, _: tokens[:, list(order)])
        if not positions:
            change("position_embedding", lambda _, tokens: tokens)
        for number, block in enumerate(blocks):
            if temperature != 1:
                change(f"{block}.attention.queries", lambda queries, _: queries / temperature)
            if hidden:
                change(f"{block}.attention.weights", seen)
            if quiet := [head for where, head in silenced if where == number]:
                change(f"{block}.attention.head_outputs", lambda outputs, _, quiet=quiet: without(outputs, quiet, 1))
        for name in skipped:
            change(name, (lambda _, tokens: tokens) if name in blocks else (lambda found, _: torch.zeros_like(found)))
        for name in unnormed:
            change(name, lambda _, tokens: tokens)
        for path in {name.rpartition(".")[0] for name in alone}:
            modules[path].forward = partial(passed, block=modules[path], path=path)
            undo.callback(delattr, modules[path], "forward")
        for module in modules.values():  # the fused kernel has no queries, weights and head_outputs to change
            if getattr(module, "fused", False):
                module.fused = False
                undo.callback(setattr, module, "fused", True)
        yield
