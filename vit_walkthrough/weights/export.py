"""A trained model for other runtimes: one graph of torch.export, and an ONNX file that ONNX Runtime reads."""

import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from vit_walkthrough.model.vit import VisionTransformer


def export(model: VisionTransformer) -> torch.export.ExportedProgram:
    """The model as one graph, for any number of images. The graph does not look for NaN; `forward` does."""
    config, batch = model.config, torch.export.Dim("batch", min=1)
    images = torch.zeros(2, config.channels, config.height, config.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch uses itself, and of Python 3.13.0
        # Without strict, the length of a batch becomes the constant 2.
        return torch.export.export(model.eval(), (images,), dynamic_shapes=({0: batch},), strict=True)


def save_onnx(path: str | os.PathLike, model: VisionTransformer) -> None:
    """Write the model as an ONNX file, for any number of images. Raises: ImportError that says what to install."""
    try:
        import onnx, onnxscript  # noqa: E401, F401, I001
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install onnx onnxruntime onnxscript") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch's exporter uses itself
        torch.onnx.export(export(model), f=path, external_data=False, verbose=False)


def load_onnx(path: str | os.PathLike, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """What an ONNX file computes, from images to logits, by ONNX Runtime on the processor. threads: 0 for all cores.
    Raises: as save_onnx."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("onnxruntime is not installed: pip install onnx onnxruntime onnxscript") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda batch: torch.from_numpy(session.run(None, {images.name: batch.numpy(force=True)})[0])
