"""A classifier as an ONNX file, its size on disk, and such a file as a classifier."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.files import written_beside
from aisec_lab.models.contexts import frozen
from aisec_lab.models.quantised import Quantised

THREADS = 1
OPSET = 20  # of traced models: the newest that the tracer writes
ROWS, CLOSE = 5, 1e-4  # on so many rows, another number than was traced, a trace has to answer so closely


def onnx_bytes(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Write a classifier as ONNX.

    Args:
        model: classifier with float32 weights, quantised or not; it stays as it is.
        shape: of one input.

    Returns:
        The file: `x`, float32 (N, *shape), to `logits` (N, K), for any N. Equal models give equal bytes, with no path,
        time or version in them. Of common layers in an `nn.Sequential`, weights of few bits take few bits, and where
        most are zero, only the others are written (opset 21). Any other model is traced by `torch.onnx.export`
        (opset 20), with all its weights in float32.

    Raises:
        ValueError: weights of another type; a layer without a form in ONNX in a quantised model, or one that torch
            cannot trace, or whose trace answers unlike the model.
    """
    from aisec_lab.models import onnx_activations  # noqa: F401  # onnx takes half a second that no other stage should pay
    from aisec_lab.models.onnx_graph import Graph
    from aisec_lab.models.onnx_layers import NoFormError, written

    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            raise ValueError(f"{name} is {weight.dtype}, and ONNX files here are of float32: use model.float()")
    graph = Graph()
    with frozen(model):
        try:
            return graph.file(written(model, graph, "x", len(shape) + 1), shape)
        except NoFormError as unknown:
            if any(isinstance(part, Quantised) for part in model.modules()):
                raise ValueError(f"{unknown}: export before quantising, or quantise an nn.Sequential") from unknown
            return traced(model, shape)


def traced(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """As `onnx_bytes`, by `torch.onnx.export`: for any frozen model whose operators ONNX has."""
    import onnx

    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters(), torch.empty(0)))
    content, short_cut = io.BytesIO(), torch.backends.mha.get_fastpath_enabled()
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
    names["dynamic_axes"] = {"x": {0: "N"}, "logits": {0: "N"}}
    torch.backends.mha.set_fastpath_enabled(False)  # it has no form in ONNX
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is tried below
            torch.onnx.export(model, (x,), content, dynamo=False, opset_version=OPSET, **names)  # type: ignore[arg-type]
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"torch.onnx.export cannot write this {type(model).__name__}: {line}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(short_cut)
    file = onnx.load_from_string(content.getvalue())
    file.producer_name = file.producer_version = ""
    written = file.SerializeToString(deterministic=True)
    rows = torch.cat([x, 1 - x, x.flip(0)])[:ROWS]
    given, told = model(rows), OnnxClassifier(written)(rows)
    if given.shape != told.shape or not torch.allclose(told, given, atol=CLOSE * float(given.abs().max()), rtol=0):
        raise ValueError(
            f"the ONNX file of this {type(model).__name__} answers {ROWS} rows unlike the model, which does something "
            "that tracing does not see, such as a fixed number of rows or a branch on values: write it without"
        )
    return written


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
