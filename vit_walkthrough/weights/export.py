"""A trained model for other runtimes: one graph of torch.export, and an ONNX file that ONNX Runtime reads."""

import logging
import os
import warnings
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from vit_walkthrough.model.vit import VisionTransformer


def export(model: VisionTransformer) -> torch.export.ExportedProgram:
    """The model as one graph, for any number of images. The graph does not look for NaN; `forward` does."""
    config, batch = model.config, torch.export.Dim("batch", min=1)
    images = torch.zeros(2, config.channels, config.height, config.width)
    # Without strict, the length of a batch becomes the constant 2.
    return torch.export.export(model.eval(), (images,), dynamic_shapes=({0: batch},), strict=True)


def save_onnx(path: str | os.PathLike, model: VisionTransformer) -> None:
    """Write the model as an ONNX file, for any number of images.

    Raises: ImportError, which says what to install.
    """
    _needed("onnx", "onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch's exporter uses itself
        torch.onnx.export(export(model), f=path, external_data=False, verbose=False)


def save_in_eight_bits(path: str | os.PathLike, onnx_file: str | os.PathLike) -> None:
    """Write an ONNX file again, its matrices as whole numbers from -127 to 127; what they multiply is rounded, too.

    Raises: as save_onnx.
    """
    _, quantization = _needed("onnx", "onnxruntime.quantization")
    logging.disable(logging.WARNING)  # it advises a step that changes nothing here
    try:
        quantization.quantize_dynamic(onnx_file, path, weight_type=quantization.QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def load_onnx(path: str | os.PathLike, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """What an ONNX file computes, from images to logits, by ONNX Runtime on the processor. threads: 0 for all cores.

    Raises: as save_onnx.
    """
    (runtime,) = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda batch: torch.from_numpy(session.run(None, {images.name: batch.numpy(force=True)})[0])


def _needed(*names: str) -> list:
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed: pip install onnx onnxruntime onnxscript") from error
