"""export.py: what goes to other runtimes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.weights import export, load_tiny

pytestmark = pytest.mark.usefixtures("unchecked")  # what is exported is the model, not a type checker around it

GRAPH = """
import sys, torch
images = torch.load("images.pt")
torch.save(torch.export.load("vit.pt2").module()(images), "graph.pt")
assert "vit_walkthrough" not in sys.modules
"""
FILE = """
import sys, numpy, onnxruntime
(logits,) = onnxruntime.InferenceSession("vit.onnx").run(None, {sys.argv[1]: numpy.load("images.npy")})
numpy.save("file.npy", logits)
assert not {"vit_walkthrough", "torch"} & sys.modules.keys()
"""


@pytest.mark.parametrize("bundled", [None, (6, 8)], ids=str)
def test_a_graph_and_an_onnx_file_take_any_number_of_images_and_run_alone(tmp_path, model, bundled):
    onnx = pytest.importorskip("onnx", reason="no onnx; pip install -r tests/requirements.txt")
    model = load_tiny(*bundled) if bundled else model
    images, graph = torch.rand(3, 3, model.config.height, model.config.width), export.export(model)
    with torch.no_grad():
        logits = model(images)
    export.save_onnx(tmp_path / "vit.onnx", model)
    for run, atol in ((graph.module(), 1e-5), (export.load_onnx(tmp_path / "vit.onnx", threads=1), 1e-4)):
        for count in (1, 2, 3):
            assert_close(run(images[:count]), logits[:count], rtol=0, atol=atol)
    torch.export.save(graph, tmp_path / "vit.pt2")
    torch.save(images, tmp_path / "images.pt")
    np.save(tmp_path / "images.npy", images.numpy())
    name = onnx.load(tmp_path / "vit.onnx").graph.input[0].name
    for script in (GRAPH, FILE):  # the graph runs without this package, the file without torch
        subprocess.run([sys.executable, "-c", script, name], cwd=tmp_path, check=True)
    assert_close(torch.load(tmp_path / "graph.pt"), logits, rtol=0, atol=1e-4)
    assert_close(torch.from_numpy(np.load(tmp_path / "file.npy")), logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "use"), [("onnxscript", export.save_onnx), ("onnxruntime", lambda path, _: export.load_onnx(path))]
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path, model, monkeypatch, name, use):
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install onnx onnxruntime onnxscript"):
        use(tmp_path / "vit.onnx", model)
