"""record, relevance and logit_lens on what torch wraps around a model. In a process of their own, because torch.compile
cannot trace through the checks of annotations that tests run under."""

import subprocess
import sys

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vit_walkthrough import VisionTransformer, ViTConfig, record
from vit_walkthrough.look.explain import logit_lens, relevance


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_by_blocks(model):
    model.blocks = nn.Sequential(*map(compiled, model.blocks))
    return model


def compiled_function(model):
    return compiled(lambda images: model(images))


def test_wrapped_models_show_what_the_model_inside_computes():
    subprocess.run([sys.executable, "-W", "ignore", __file__], check=True, timeout=300)


if __name__ == "__main__":
    for wrap in (compiled, compiled_in_place, compiled_by_blocks, compiled_function, nn.DataParallel, AveragedModel):
        model = VisionTransformer(ViTConfig((12, 20), 4, dim=32, depth=2, heads=4, hidden=48, classes=5)).eval()
        images = torch.rand(2, 3, 12, 20)
        nn.init.normal_(model.head.logits.weight)
        with record(model) as expected:
            model(images)
        maps = relevance(model, images), logit_lens(model, images)
        wrapped = wrap(model)
        wrapped(images)  # from here on the compiled code is there, which calls no hook
        seen = wrapped if isinstance(wrapped, nn.Module) else model
        with record(seen) as trace:
            wrapped(images)
        assert trace.names == expected.names, trace.names
        assert all(torch.equal(trace[name], expected[name]) for name in trace)
        assert all(map(torch.equal, maps, (relevance(seen, images), logit_lens(seen, images))))
        torch.testing.assert_close(wrapped(images), expected["output"], rtol=0, atol=1e-5)
