"""A classifier as an ONNX file, its size on disk, and such a file as a classifier."""

import os
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.files import written_beside
from aisec_lab.models.contexts import frozen

THREADS = 1
DTYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}


def onnx_bytes(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Write a classifier as ONNX (opset 21).

    Args:
        model: classifier made of the lab's layers, quantised or not; it stays as it is.
        shape: of one input.

    Returns:
        The file: `x`, float32 (N, *shape), to `logits` (N, K), for any N. Equal models give equal bytes, with no path,
        time or version in them. Weights of few bits take few bits; where most are zero, only the others are written.

    Raises:
        ValueError: a layer whose form in ONNX is not known; weights of another type than float32.
    """
    kinds = {str(each.dtype) for each in (*model.parameters(), *model.buffers()) if each.is_floating_point()}
    if kinds - {"torch.float32"}:
        raise ValueError(f"the file is of float32, the model has weights of {sorted(kinds)}: write model.float()")
    from aisec_lab.models.onnx_graph import Graph  # onnx takes half a second that no other stage should pay
    from aisec_lab.models.onnx_layers import written

    graph = Graph()
    with frozen(model):
        return graph.file(written(model, graph, "x", len(shape) + 1), shape)


def save_onnx(path: str | os.PathLike[str], model: nn.Module, shape: tuple[int, ...]) -> int:
    """Write `onnx_bytes` to a file, whole or not at all; returns its size in bytes, raises as that does."""
    content = onnx_bytes(model, shape)
    with written_beside(Path(path)) as beside:
        return beside.write_bytes(content)


class OnnxClassifier(nn.Module):
    """An ONNX file as a classifier, run by ONNX Runtime on one thread of the CPU; it has no gradient.

    A file with a fixed number of rows is asked as often as it takes, rows of zeros filling the last time; its answer to
    a row must not depend on the others, as that of any classifier in evaluation mode.

    Args:
        content: the file, with one input of floating point numbers and one output, as `onnx_bytes` writes it; float32,
            float64 or float16.

    Raises:
        ValueError: no such file; on a call, inputs that are no floats or of another shape than the file says.
    """

    differentiable: ClassVar[bool] = False

    def __init__(self, content: bytes) -> None:
        super().__init__()
        import onnxruntime  # as above

        if not isinstance(content, bytes):
            raise ValueError(f"an ONNX file's content is bytes, got a {type(content).__name__}: Path(it).read_bytes()")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf:
            raise ValueError(f"these {len(content)} bytes are no ONNX file") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            names = [[each.name for each in side] for side in (inputs, outputs)]
            raise ValueError(
                f"a classifier has one input and one output, the file has {names[0]} and {names[1]}: "
                "export it with the logits alone"
            )
        (entry,) = inputs
        if entry.type not in DTYPES:
            raise ValueError(f"the file takes {entry.type} and a classifier takes floats: put the conversion inside")
        self.name, self.dtype = entry.name, DTYPES[entry.type]
        sizes = [size if isinstance(size, int) else None for size in entry.shape]  # None and names stand for any
        self.rows, self.shape = (sizes[0], tuple(sizes[1:])) if sizes else (None, ())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *shape) in [0, 1], on their device, in the file's own type."""
        if not x.is_floating_point():
            raise ValueError(f"inputs are floats in [0, 1], got {x.dtype}: divide bytes by 255")
        given = tuple(x.shape[1:])
        if len(given) != len(self.shape) or any(
            size not in (None, side) for size, side in zip(self.shape, given, strict=True)
        ):
            wanted = tuple("any" if size is None else size for size in self.shape)
            raise ValueError(f"the file takes inputs of shape {wanted}, got {given}")
        rows = x.detach().to("cpu", self.dtype)
        if self.rows:
            missing = -len(x) % self.rows if len(x) else self.rows
            rows = torch.cat([rows, rows.new_zeros(missing, *given)])
        parts = rows.split(self.rows or max(1, len(x)))
        answers = [torch.from_numpy(self.session.run(None, {self.name: part.numpy()})[0]) for part in parts]
        return torch.cat(answers)[: len(x)].to(x.device)
