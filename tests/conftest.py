"""What the tests share: seeds, a small model on a grid that is not square, and other libraries as references."""

import jaxtyping
import pytest
import torch
from torch import nn

from tests.peers.libraries import import_peer
from vit_walkthrough import VisionTransformer, ViTConfig, draw
from vit_walkthrough.model import attention

torch.set_num_threads(1)  # pytest-xdist already runs one process per core


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Call the package as a reader does, with no runtime type checker in front of its own errors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def randomize():
    """Fill every parameter with noise, so that no zero or one hides a mistake and attention is far from uniform."""

    def fill(module: nn.Module, std: float = 0.25) -> nn.Module:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, std)
        return module.eval()

    return fill


@pytest.fixture
def config():
    return ViTConfig(image_size=(12, 20), patch_size=4, dim=32, depth=2, heads=4, hidden=48, classes=5)


@pytest.fixture
def model(config, randomize):
    return randomize(VisionTransformer(config))


@pytest.fixture
def images():
    return torch.rand(2, 3, 12, 20)


@pytest.fixture
def tokens():
    return torch.randn(2, 7, 32)


@pytest.fixture
def twice():
    """Stands where a dropout stood: what goes through it is doubled, so that the place shows in the result."""
    twice = nn.Identity()
    twice.register_forward_hook(lambda _, inputs, output: 2 * output)
    return twice


@pytest.fixture(scope="session")
def peer():
    """Import a public library that some tests compare with, or skip with the reason why it cannot be imported."""

    def load(name: str):
        try:
            return import_peer(name)
        except ImportError as error:
            pytest.skip(f"{name} cannot be imported: {error}")

    return load


@pytest.fixture
def kernel_calls(monkeypatch):
    calls, kernel = [], attention.F.scaled_dot_product_attention

    def counted(queries, keys, values):
        calls.append(tuple(queries.shape))
        return kernel(queries, keys, values)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", counted)
    return calls


@pytest.fixture
def on_the_processor(monkeypatch):
    """What is compared bit for bit is computed where the order of a sum is fixed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)


@pytest.fixture
def spy(monkeypatch):
    """Record what a function of `draw` is called with."""

    def watch(name: str) -> list:
        calls, real = [], getattr(draw, name)
        monkeypatch.setattr(draw, name, lambda *args, **more: (calls.append((args, more)), real(*args, **more))[1])
        return calls

    return watch
