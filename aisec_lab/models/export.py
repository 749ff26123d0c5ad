"""A classifier as an ONNX file, its size on disk, and such a file as a classifier."""

import os
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.files import written_beside
from aisec_lab.models.contexts import frozen

THREADS = 1


def onnx_bytes(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Write a classifier as ONNX (opset 21).

    Args:
        model: classifier made of the lab's layers, quantised or not; it stays as it is.
        shape: of one input.

    Returns:
        The file: `x`, float32 (N, *shape), to `logits` (N, K), for any N. Equal models give equal bytes, with no path,
        time or version in them. Weights of few bits take few bits; where most are zero, only the others are written.

    Raises:
        ValueError: a layer whose form in ONNX is not known.
    """
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

    Args:
        content: the file, with one input and one output, as `onnx_bytes` writes it.
    """

    differentiable: ClassVar[bool] = False

    def __init__(self, content: bytes) -> None:
        super().__init__()
        import onnxruntime  # as above

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *shape), float32 in [0, 1], on their device."""
        (name,) = (each.name for each in self.session.get_inputs())
        (logits,) = self.session.run(None, {name: x.detach().cpu().numpy()})
        return torch.from_numpy(logits).to(x.device)
