"""Notebook 10 as it runs where there is a network: on a model, names and pictures that it fetches."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import torch

from tests.notebooks.test_notebooks import ROOT, load, sources
from vit_walkthrough import draw, weights
from vit_walkthrough.model.config import ViTConfig
from vit_walkthrough.model.tokens import resample_positions
from vit_walkthrough.model.vit import VisionTransformer
from vit_walkthrough.train.loop import fit


def test_with_a_network_notebook_10_runs_on_what_it_fetches(monkeypatch):
    def fetched(name):
        torch.manual_seed(0)
        model = VisionTransformer(ViTConfig(224, 16, dim=48, depth=4, heads=2, hidden=64, classes=1000)).eval()
        for parameter in model.blocks.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.normal_(model.head.logits.weight)
        positions = model.position_embedding.positions
        positions.data = resample_positions(torch.randn(1, 10, 48), 14, 14)  # neighbours are alike
        if headless := "dino" in name:
            model.head.logits = torch.nn.Identity()
        preprocessing = weights.Preprocessing((0.5,) * 3, (0.5,) * 3, (224, 224))
        return weights.Pretrained(model, preprocessing, () if headless else tuple(map(str, range(1000))), name)

    def small_cifar10(root, train, download):
        asked.append((train, download))
        labels = np.arange(40) % 10
        images = np.zeros((40, 32, 32, 3), dtype=np.uint8)
        images[labels % 2 == 1, 16:] = 200
        images[:, :, :16, 0] = (25 * labels)[:, None, None]
        return SimpleNamespace(data=images, targets=labels.tolist(), classes=[f"kind {label}" for label in range(10)])

    cells = sources(load(ROOT / "notebooks" / "10_real_weights.ipynb"), "code")
    assert re.search(r"^use_network = False\b.*\nmy_photo = None\b", "\n".join(cells), flags=re.M)  # as it is kept
    asked, shown = [], []
    monkeypatch.setattr(weights, "load_pretrained", fetched)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=small_cifar10))
    monkeypatch.setattr(draw, "show", lambda figure, alt: shown.append(draw.render(figure)))
    trained = "train, test =|ax = plot_bars\\(scores|recipe =|scratch =|assert results|def confusion|assert tables"
    names = {"fit": fit}  # of a cell that is left out because it trains for long, as are these, which use no network
    for source in cells:
        if not re.search(rf"^({trained})", source, flags=re.M):
            source = source.replace("use_network = False", "use_network = True")
            source = source.replace("my_photo = None", f"my_photo = {str(ROOT / 'images/photos/coffee.jpg')!r}")
            exec(source, names)
    assert names["shown"].shape == (4, 3, 224, 224)
    assert names["fine_model"].config.tokens == 24 * 24 + 1
    assert asked == [(True, True), (False, True)]
    assert len(shown) >= 9
