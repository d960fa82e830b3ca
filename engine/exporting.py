"""Networks written as ONNX files: preprocessing stays outside, what is needed to use a file is in its metadata."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from engine.exported import INPUTS, OUTPUTS
from models.fixed import USABLE
from utils.files import write_atomically

OPSET = 18
MOST_IMAGES = 4_096
"""Of a batch: without a limit, torch 2.7 takes into account that a batch may be endless, and refuses the network."""


def write_onnx(twin: nn.Module, example: tuple[Tensor, Tensor, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Write a network with fixed numbers of people as an ONNX file, atomically.

    How many images there are, and their height and width, remains free.

    Args:
        twin: a `models.fixed.FixedNetwork`, in eval mode, on the CPU.
        example: arguments of it, of two images or more.
        metadata: text by key.
        path: file to write.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: the file cannot be written.
    """
    import onnx

    batch = Dim("batch", max=MOST_IMAGES)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # of the second and third input, which is the first's
        program = torch.onnx.export(
            twin,
            example,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: batch, 2: Dim.AUTO, 3: Dim.AUTO}, {0: batch}, {0: batch}),
            custom_translation_table={torch.ops.person_search.nms_mask.default: _nms_mask()},
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata)
    write_atomically(path, lambda file: file.write(model.SerializeToString()))


def _nms_mask() -> Callable:
    """What stands for `models.fixed.nms_mask` in an ONNX file."""
    from onnxscript import opset18 as op

    def numbers(*values: int) -> Tensor:
        return op.Constant(value_ints=values)

    def translate(boxes, scores, iou: float, count: int):
        limits = numbers(count), op.Constant(value_floats=[iou]), op.Constant(value_floats=[USABLE])
        kept = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, numbers(1)), *limits)  # rows of image, class, box
        cells = op.Gather(kept, numbers(0, 2), axis=1)
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(cells, start=0, end=1))
        return op.Cast(op.ScatterND(op.Mul(scores, op.Constant(value_float=0.0)), cells, ones), to=9)  # to bool

    return translate
