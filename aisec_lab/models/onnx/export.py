"""Write a classifier as an ONNX file, and load an ONNX file as a classifier."""

import io
import os
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aisec_lab.core.files import written_beside
from aisec_lab.models.contexts import frozen
from aisec_lab.models.passes import logits_of
from aisec_lab.models.quantised import Quantised

THREADS = 1
DTYPES = {"tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16}
OPSET = 20  # of traced models: the newest that the tracer writes
ROWS, CLOSE = 5, 1e-4  # rows on which a trace is compared with the model, another number than was traced; tolerance


def onnx_bytes(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Export a classifier to ONNX.

    An `nn.Sequential` of common layers is written directly (opset 21): weights of few bits take few bits, and mostly
    zero weights are written sparsely. Any other model is traced by `torch.onnx.export` (opset 20), in float32.

    Args:
        model: classifier with float32 weights, quantised or not; it is not changed.
        shape: of one input.

    Returns:
        The bytes of the file, with input `x`, float32 (N, *shape), and output `logits` (N, K), for any N. Equal models
        give equal bytes, without path, time or version.

    Raises:
        ValueError: weights of another dtype; a quantised model with a layer without ONNX form; a model that torch
            cannot trace, or whose trace has other outputs.
    """
    from aisec_lab.models.onnx import activations as onnx_activations  # noqa: F401  # onnx takes half a second that no other stage should pay
    from aisec_lab.models.onnx.graph import Graph
    from aisec_lab.models.onnx.layers import NoFormError, written

    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_floating_point() and weight.dtype != torch.float32:
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
    """Export a frozen model by `torch.onnx.export`; arguments, result and errors of `onnx_bytes`."""
    import onnx

    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters(), torch.empty(0)))
    rows = torch.cat([x, 1 - x, x.flip(0)])[:ROWS]
    logits = logits_of(model, rows)
    content, short_cut = io.BytesIO(), torch.backends.mha.get_fastpath_enabled()
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
    names["dynamic_axes"] = {"x": {0: "N"}, "logits": {0: "N"}}
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path has no ONNX form
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # we compare outputs below
            torch.onnx.export(model, (x,), content, dynamo=False, opset_version=OPSET, **names)  # type: ignore[arg-type]
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"torch.onnx.export cannot write this {type(model).__name__}: {line}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(short_cut)
    file = onnx.load_from_string(content.getvalue())
    file.producer_name = file.producer_version = ""
    written = file.SerializeToString(deterministic=True)
    traced_logits = OnnxClassifier(written)(rows)
    if logits.shape != traced_logits.shape or not torch.allclose(
        traced_logits, logits, atol=CLOSE * float(logits.abs().max()), rtol=0
    ):
        raise ValueError(
            f"the ONNX file of this {type(model).__name__} answers {ROWS} rows unlike the model, which does something "
            "that tracing does not see, such as a fixed number of rows or a branch on values: write it without"
        )
    return written


def save_onnx(path: str | os.PathLike[str], model: nn.Module, shape: tuple[int, ...]) -> int:
    """Export a classifier to an ONNX file, written atomically.

    Args:
        path: of the file; its folder must exist.
        model: classifier with float32 weights, quantised or not; it is not changed.
        shape: of one input.

    Returns:
        Size of the file in bytes.

    Raises:
        ValueError: what `onnx_bytes` refuses.
    """
    content = onnx_bytes(model, shape)
    with written_beside(Path(path)) as beside:
        return beside.write_bytes(content)


class OnnxClassifier(nn.Module):
    """An ONNX file as a classifier, run by ONNX Runtime on one CPU thread; it has no gradient.

    A file with a fixed number of rows is run in several batches, the last padded with zeros. Its output for a row must
    not depend on other rows; that of a classifier in evaluation mode does not.

    Args:
        content: bytes of the file, with one floating point input (float32, float64 or float16) and one output.

    Raises:
        ValueError: bytes that are not such a file; in a call, inputs that are not floating point or of another shape.
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
        """Logits (N, K) of inputs (N, *shape) in [0, 1], on their device, in the file's dtype."""
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
