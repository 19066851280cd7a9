"""export.py: what goes to other runtimes. The sixteen bundled models are compared in tests/nightly/test_export.py."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.weights import export

pytestmark = pytest.mark.usefixtures("unchecked")  # what is exported is the model, not a type checker around it


def test_a_graph_takes_any_number_of_images(model, images):
    run = export.export(model).module()
    for batch in (images[:1], images, images.repeat(2, 1, 1, 1)[:3]):
        with torch.no_grad():
            assert_close(run(batch), model(batch), rtol=0, atol=1e-5)


def test_an_onnx_file_gives_the_same_logits(tmp_path, model, images):
    pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install -r tests/requirements.txt")
    whole = tmp_path / "vit.onnx"
    export.save_onnx(whole, model)
    with torch.no_grad():
        logits = model(images)
    assert_close(export.load_onnx(whole, threads=1)(images), logits, rtol=0, atol=1e-4)
    assert_close(export.load_onnx(whole, threads=1)(images[:1]), logits[:1], rtol=0, atol=1e-4)


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


def test_the_graph_runs_without_this_package_and_the_file_without_torch(tmp_path, model, images):
    onnx = pytest.importorskip("onnx", reason="no onnx; pip install -r tests/requirements.txt")
    torch.export.save(export.export(model), tmp_path / "vit.pt2")
    export.save_onnx(tmp_path / "vit.onnx", model)
    torch.save(images, tmp_path / "images.pt")
    np.save(tmp_path / "images.npy", images.numpy())
    name = onnx.load(tmp_path / "vit.onnx").graph.input[0].name
    for script in (GRAPH, FILE):
        subprocess.run([sys.executable, "-c", script, name], cwd=tmp_path, check=True)
    with torch.no_grad():
        logits = model(images)
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
