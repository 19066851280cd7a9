"""All sixteen bundled models as graphs of torch.export and as ONNX files: equal logits for one image and for seven."""

import pytest
import torch
from torch.testing import assert_close

from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.weights import bundled, load_tiny
from vit_walkthrough.weights.export import export, load_onnx, save_onnx

pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install -r tests/requirements.txt")


@pytest.mark.parametrize(("patch_size", "heads"), bundled())
@pytest.mark.usefixtures("unchecked")  # what is exported is the model, not a type checker around it
def test_a_graph_and_an_onnx_file_give_the_logits_of_the_model(tmp_path, patch_size, heads):
    model, images = load_tiny(patch_size, heads), ClutteredDigits("test").sample(7, draw=0)[0]
    save_onnx(tmp_path / "vit.onnx", model)
    for run in (export(model).module(), load_onnx(tmp_path / "vit.onnx", threads=1)):
        for batch in (images[:1], images):
            with torch.no_grad():
                assert_close(run(batch), model(batch), rtol=0, atol=1e-4)
