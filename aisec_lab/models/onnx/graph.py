"""A builder of ONNX files: nodes and constants."""

from typing import Any

import numpy as np
import onnx
from onnx import helper
from torch import Tensor

OPSET, IR = 21, 10  # the first with four-bit integers in blocks
INDEX_COST = 200  # bytes of the nodes of a sparse constant


class Graph:
    """An ONNX graph under construction; names are numbers, so that equal networks give equal bytes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.known: dict[tuple[Any, ...], str] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output.

        Args:
            kind: the ONNX operator.
            inputs: names of its inputs; an empty name leaves an optional input out.
            attributes: of the operator.

        Returns:
            The name of its output.
        """
        name = self._name()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(
        self, values: Tensor | np.ndarray | float | list[int], *, four_bits: bool = False, rest: int = 0
    ) -> str:
        """Add a constant in the smaller of two forms: dense, or sparse with the indices of the entries unlike `rest`.

        Args:
            values: an array or a number, float32 unless it has another dtype; a list is of int64.
            four_bits: whether integers in [-8, 7] take half a byte each.
            rest: value of most entries in the sparse form.

        Returns:
            Its name; equal constants are written once.
        """
        if isinstance(values, Tensor):
            array = values.detach().cpu().numpy()
        else:
            kind = np.int64 if isinstance(values, list) else getattr(values, "dtype", np.float32)
            array = np.asarray(values, dtype=kind)
        key = (array.dtype.str, array.shape, array.tobytes(), four_bits)
        if key not in self.known:
            cost = np.count_nonzero(array != rest) * (array.itemsize + _index(array).itemsize) + INDEX_COST
            short = cost < array.nbytes / (2 if four_bits else 1)
            self.known[key] = self._sparse(array, rest) if short else self._dense(array, four_bits)
        return self.known[key]

    def file(self, output: str, shape: tuple[int, ...]) -> bytes:
        """The bytes of the ONNX file, with input `x`, float32 (N, *shape), and output `logits` (N, K).

        Args:
            output: name of the node that computes the logits.
            shape: of one input.
        """
        nodes = [*self.nodes, helper.make_node("Identity", [output], ["logits"])]
        kind = onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("x", kind, ["N", *shape])]
        outputs = [helper.make_tensor_value_info("logits", kind, ["N", "K"])]
        graph = helper.make_graph(nodes, "classifier", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _name(self) -> str:
        return str(len(self.nodes) + len(self.constants))

    def _dense(self, array: np.ndarray, four_bits: bool) -> str:
        kind = onnx.TensorProto.INT4 if four_bits else helper.np_dtype_to_tensor_dtype(array.dtype)
        raw = array.tobytes()
        if four_bits:
            nibbles = np.append(array.ravel(), np.zeros(array.size % 2, np.int8)).view(np.uint8) & 15
            raw = (nibbles[::2] | nibbles[1::2] << 4).tobytes()  # the first of two in the lower half
        name = self._name()
        self.constants.append(helper.make_tensor(name, kind, array.shape, raw, raw=True))
        return name

    def _sparse(self, array: np.ndarray, rest: int) -> str:
        """The sparse form: a constant array into which the other values are scattered when the file is loaded."""
        places = np.flatnonzero(array != rest).astype(_index(array).dtype)
        filling = helper.make_tensor("", helper.np_dtype_to_tensor_dtype(array.dtype), [1], [rest])
        filled = self.node("ConstantOfShape", self.constant([array.size]), value=filling)
        at = self.node("Cast", self._dense(places, False), to=onnx.TensorProto.INT64)
        flat = self.node("ScatterElements", filled, at, self._dense(array.ravel()[places], False))
        return self.node("Reshape", flat, self.constant(list(array.shape)))


def _index(array: np.ndarray) -> np.ndarray:
    """A zero of the smallest integer type that holds any index of the array."""
    return np.zeros((), np.uint16 if array.size <= 2**16 else np.uint32)
