"""A classifier as an ONNX file: it answers as the classifier does, its bytes are a function of it, and they are few."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.nn.utils import parametrizations, prune

from aisec_lab.models import CNN, MLP, Normalised, ResNet, StridedCNN, TemperedCNN, logits_of
from aisec_lab.models.onnx.export import OnnxClassifier, onnx_bytes, save_onnx
from aisec_lab.models.onnx.graph import Graph
from aisec_lab.models.quantised import FixedGrid, Quantised, RowGrid

NETWORKS = [
    (CNN(8, 16), (1, 8, 8)),
    (StridedCNN(8, 16), (3, 9, 11)),
    (MLP((12,)), (7,)),
    (ResNet(width=8), (3, 16, 16)),
    (TemperedCNN(8, 16), (1, 16, 16)),
    (TemperedCNN(8, 16, scale=1.5, temperature=3.0, offset=0.5), (1, 16, 16)),
]
ROUNDINGS = {
    "weights": lambda layer: Quantised(layer, 8),
    "half bytes": lambda layer: Quantised(layer, 4),
    "blocks": lambda layer: Quantised(layer, 4, 32),
    "small blocks of bytes": lambda layer: Quantised(layer, 8, 10),
    "by row": lambda layer: Quantised(layer, 8, before=RowGrid()),
    "fixed": lambda layer: Quantised(
        layer, 8, before=FixedGrid(-2, 2), after=FixedGrid(-6, 6) if isinstance(layer, nn.Conv2d) else None
    ),
}


def built(network, shape, number=0):
    """A network with weights and norms as if trained."""
    generator = torch.Generator().manual_seed(number)
    model = network(shape, 5, generator=generator).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    return model


def rounded(model, rounding):
    """A copy, each of its layers in a row quantised."""
    layers = [rounding(layer) if isinstance(layer, nn.Linear | nn.Conv2d) else copy.deepcopy(layer) for layer in model]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(("network", "shape"), NETWORKS, ids=lambda value: type(value).__name__)
def test_the_file_answers_like_the_network(network, shape):
    """Whatever the number of rows; twice written is once written, and the network stays as it is, mode and all."""
    model = built(network, shape)
    if isinstance(model[0], Normalised):
        model[0] = Normalised([0.3] * shape[0], [0.2 + 0.1 * i for i in range(shape[0])])
    model.train()
    content = onnx_bytes(model, shape)
    assert all(part.training for part in model.modules())
    assert content == onnx_bytes(copy.deepcopy(model), shape)
    for rows in (1, 9):
        x = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(OnnxClassifier(content)(x), logits_of(model, x), atol=2e-5)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_file_of_a_rounded_network_answers_like_it(rounding):
    """ONNX Runtime multiplies whole numbers where it can: a rounding falls to the other side only now and then."""
    x = torch.rand(300, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    for network in (CNN(8, 16), StridedCNN(8, 16)):
        model = rounded(built(network, (1, 12, 12)), ROUNDINGS[rounding])
        ours, theirs = logits_of(model, x), logits_of(OnnxClassifier(onnx_bytes(model, (1, 12, 12))), x)
        spread = ours.std(0).mean()
        assert (ours - theirs).abs().max() < 0.2 * spread
        assert (ours - theirs).abs().mean() < 0.005 * spread
        assert (ours.argmax(1) == theirs.argmax(1)).double().mean() >= 0.995


def test_large_sums_of_bytes_do_not_overflow():
    """All weights and inputs at their ends: the sums that 16 bits would cut off."""
    layer = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    model = nn.Sequential(Quantised(layer, 8, before=FixedGrid(0, 1))).eval()
    assert torch.allclose(
        OnnxClassifier(onnx_bytes(model, (64,)))(torch.ones(3, 64)), torch.full((3, 2), 64.0), rtol=1e-3
    )


def test_nothing_is_written_but_the_network():
    """No name but numbers, no producer, no text: the bytes are a function of the weights."""
    content = onnx.load_from_string(onnx_bytes(built(CNN(), (1, 8, 8)), (1, 8, 8)))
    assert (content.producer_name, content.producer_version, content.doc_string) == ("", "", "")
    assert not content.metadata_props
    for node in content.graph.node:
        assert (node.name, node.doc_string, len(node.metadata_props)) == ("", "", 0)
        assert all(name.isdecimal() or name in ("x", "logits") for name in [*node.input, *node.output])
    assert all(each.name.isdecimal() for each in content.graph.initializer)


def test_few_bits_take_few_bytes():
    """Beside a float32 file: bytes under 0.3, half-bytes in blocks under 0.2; nine zeros in ten under 0.2."""
    model, shape = built(CNN(), (1, 8, 8)), (1, 8, 8)
    weights = sum(each.numel() for each in model.parameters())
    before = len(onnx_bytes(model, shape))
    assert 4 * weights < before < 4 * weights + 2000
    assert len(onnx_bytes(rounded(model, ROUNDINGS["weights"]), shape)) < 0.3 * before
    assert len(onnx_bytes(rounded(model, ROUNDINGS["blocks"]), shape)) < 0.2 * before
    with torch.no_grad():
        for each in model.parameters():
            if each.ndim > 1:
                each.view(-1)[torch.arange(each.numel()) % 10 > 0] = 0
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = [rounded(model, ROUNDINGS[name]) for name in ("weights", "blocks", "half bytes")]
    for pruned in (model, *whole):
        content = onnx_bytes(pruned, shape)
        assert len(content) < 0.2 * before
        assert torch.allclose(OnnxClassifier(content)(x), logits_of(pruned, x), atol=2e-5)


def read_back(graph, name):
    """The value of a constant, as ONNX Runtime sees it."""
    content = onnx.load_from_string(graph.file(name, (1,)))
    session = onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros((1, 1), np.float32)})[0]


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-8, 7)))
def test_half_bytes_come_back(values):
    graph = Graph()
    codes = graph.constant(values, four_bits=True)
    whole = graph.node("DequantizeLinear", codes, graph.constant(1.0))
    assert np.array_equal(read_back(graph, whole), values)


@settings(max_examples=25, deadline=None)
@given(
    side=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    number=st.integers(0, 99),
)
def test_sparse_constants_come_back(side, share, number):
    """In whichever form is shorter: never longer than an array without zeros, and a third of it where few are not."""
    rng = np.random.default_rng(number)
    values = (rng.standard_normal((side, 2 * side)) * (rng.random((side, 2 * side)) < share)).astype(np.float32)
    graph = Graph()
    name = graph.constant(values)
    assert np.array_equal(read_back(graph, name), values)
    full = Graph()
    longest = len(full.file(full.constant(np.ones_like(values)), (1,)))
    assert len(graph.file(name, (1,))) <= longest
    if share < 0.1 and values.nbytes > 2000:
        assert len(graph.file(name, (1,))) < longest / 3


def test_saved_is_what_was_written(tmp_path):
    model = built(MLP((4,)), (3,))
    size = save_onnx(tmp_path / "model.onnx", model, (3,))
    content = (tmp_path / "model.onnx").read_bytes()
    assert (size, content) == (len(content), onnx_bytes(model, (3,)))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def foreign(model, shape, rows, kind):
    """A file as other programs write it: a fixed number of rows, another type of number."""
    kinds = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.DOUBLE: torch.float64}
    dtype = kinds.get(kind, torch.float16)
    content = onnx.load_from_string(onnx_bytes(model, shape))
    for each in content.graph.initializer:
        if each.data_type == onnx.TensorProto.FLOAT:
            values = torch.from_numpy(onnx.numpy_helper.to_array(each).copy()).to(dtype).numpy()
            each.CopyFrom(onnx.numpy_helper.from_array(values, each.name))
    for each in (*content.graph.input, *content.graph.output):
        each.type.tensor_type.elem_type = kind
        if rows:
            each.type.tensor_type.shape.dim[0].dim_value = rows
    onnx.checker.check_model(content, full_check=True)
    return content.SerializeToString()


@pytest.mark.parametrize("rows", [None, 1, 4])
@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16"])
def test_files_of_others_are_read_as_they_are(kind, rows):
    """A fixed number of rows, another type: whatever the number of rows that are asked about, none included."""
    model = built(MLP((12,)), (7,))
    file = OnnxClassifier(foreign(model, (7,), rows, getattr(onnx.TensorProto, kind)))
    x = torch.rand(9, 7, generator=torch.Generator().manual_seed(1))
    expected = model.double()(x.double()) if kind == "DOUBLE" else model(x)
    tolerance = {"FLOAT": 2e-5, "DOUBLE": 1e-12, "FLOAT16": 2e-2}[kind]
    for count in (0, 1, 4, 9):
        answer = file(x[:count].double())
        assert answer.shape == (count, 5)
        assert answer.dtype == {"FLOAT": torch.float32, "DOUBLE": torch.float64, "FLOAT16": torch.float16}[kind]
        assert torch.allclose(answer.double(), expected[:count].double(), atol=tolerance)


def changed(content, change):
    """A file after a change of its graph."""
    loaded = onnx.load_from_string(content)
    change(loaded.graph)
    return loaded.SerializeToString()


def whole_numbers(graph):
    """The first thing done is a cast from int64."""
    graph.node.insert(0, onnx.helper.make_node("Cast", ["pixels"], ["x"], to=onnx.TensorProto.FLOAT))
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.INT64, ["N", 7]))


def two_outputs(graph):
    """Logits, and the same again."""
    graph.node.append(onnx.helper.make_node("Identity", ["logits"], ["again"]))
    graph.output.append(onnx.helper.make_tensor_value_info("again", onnx.TensorProto.FLOAT, ["N", "K"]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda content: OnnxClassifier("model.onnx"), r"content is bytes, got a str: Path\(it\)"),
        (lambda content: OnnxClassifier(b"no file"), "these 7 bytes are no ONNX file"),
        (lambda content: OnnxClassifier(changed(content, whole_numbers)), r"takes tensor\(int64\)"),
        (lambda content: OnnxClassifier(changed(content, two_outputs)), r"has \['x'\] and \['logits', 'again'\]"),
        (lambda content: OnnxClassifier(content)(torch.zeros(2, 7, dtype=torch.uint8)), "divide bytes by 255"),
        (lambda content: OnnxClassifier(content)(torch.zeros(2, 8)), r"of shape \(7,\), got \(8,\)"),
        (lambda content: OnnxClassifier(content)(torch.zeros(2, 1, 7)), r"of shape \(7,\), got \(1, 7\)"),
        (lambda content: onnx_bytes(built(MLP((4,)), (7,)).double(), (7,)), r"float64.*: use model.float\(\)"),
        (lambda content: onnx_bytes(built(MLP((4,)), (7,)).bfloat16(), (7,)), "bfloat16"),
    ],
)
def test_files_that_are_no_classifiers_are_refused(ask, message):
    """In a line, and not by ONNX Runtime's own errors."""
    with pytest.raises(ValueError, match=message):
        ask(onnx_bytes(built(MLP((4,)), (7,)), (7,)))


COMMON = {
    "batch norm": (nn.BatchNorm2d(4), nn.ReLU6()),
    "bare batch norm": (nn.BatchNorm2d(4, affine=False), nn.LeakyReLU(0.2)),
    "pooling": (nn.MaxPool2d(3, 2, 1), nn.ELU(0.7)),
    "dilated pooling": (nn.MaxPool2d(2, 1, dilation=2), nn.Sigmoid()),
    "mean pooling": (nn.AvgPool2d(3, 2, 1), nn.GELU()),
    "mean pooling of what is there": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.GELU("tanh")),
    "activations": (nn.SiLU(), nn.Tanh(), nn.Hardtanh(-0.2, 0.3)),
}


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("rounding", [None, "weights", "blocks"])
def test_common_layers_are_written_rounded_or_not(name, rounding):
    """A rounded network's file is smaller: it was not traced."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *copy.deepcopy(COMMON[name]), nn.Flatten(), nn.LazyLinear(60), nn.ReLU())
    model.append(nn.Linear(60, 5))
    x = torch.rand(9, 1, 12, 12)
    for _ in range(3):
        model.train()(x)  # the norm has statistics
    model.eval()
    model = model if rounding is None else rounded(model, ROUNDINGS[rounding])
    content = onnx_bytes(model, (1, 12, 12))
    assert torch.allclose(OnnxClassifier(content)(x), logits_of(model, x), atol=2e-5)
    if rounding:
        assert len(content) < sum(each.numel() for each in [*model.parameters(), *model.buffers()]) * 1.5 + 4000


class Own(nn.Module):
    """A network with a function of its own and a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.first, self.spare, self.last = nn.Conv2d(1, 4, 3, padding="same"), nn.Linear(3, 3), nn.Linear(256, 5)

    def forward(self, x):
        return self.last((self.first(x).relu() - x).flatten(1))


class Doubled(nn.Linear):
    """Inherits, and does something else."""

    def forward(self, input):
        return 2 * super().forward(input)


class Lines(nn.Module):
    """A module of another kind on the lines of an image."""

    def __init__(self, inner, width):
        super().__init__()
        self.inner, self.last = inner, nn.Linear(8 * width, 5)

    def forward(self, x):
        given = self.inner(x.squeeze(1))
        return self.last((given[0] if isinstance(given, tuple) else given).flatten(1))


def hooked():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    model[1].register_forward_hook(lambda _, args, out: out.flip(1))
    return model


def pruned():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    prune.l1_unstructured(model[1], "weight", 0.5)
    return model


TRACED = {
    "own module": Own,
    "one that inherits": lambda: nn.Sequential(nn.Flatten(), Doubled(64, 5)),
    "a hook": hooked,
    "a mask": pruned,
    "weight norm": lambda: nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 5))),
    "Conv1d": lambda: Lines(nn.Conv1d(8, 3, 3, padding=1, padding_mode="circular"), 3),
    "LSTM": lambda: Lines(nn.LSTM(8, 3, batch_first=True), 3),
    "transformer": lambda: Lines(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 8),
    "linear layers on places": lambda: nn.Sequential(nn.Linear(8, 3), nn.Flatten(), nn.Linear(24, 5)),
    "pooling to four pixels": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 5)),
    "reflected": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(128, 5)
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_any_other_model_is_traced(name):
    """For any number of rows, with equal bytes each time, and nothing of where they were written."""
    torch.manual_seed(0)
    model = TRACED[name]().train()
    content = onnx_bytes(model, (1, 8, 8))
    assert all(part.training for part in model.modules())
    assert content == onnx_bytes(model, (1, 8, 8))
    assert not any(word in content for word in (b"pytorch", b".py", b"tests"))
    model.eval()
    for rows in (1, 2, 7):
        x = torch.rand(rows, 1, 8, 8)
        assert torch.allclose(OnnxClassifier(content)(x), logits_of(model, x), atol=2e-5)


class TwoRows(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 5)

    def forward(self, x):
        answers = self.last(x.flatten(1))
        return answers * torch.full((len(x), 1), float(len(x)))


class Branching(TwoRows):
    def forward(self, x):
        answers = self.last(x.flatten(1))
        return answers if len(x) == 2 else -answers


class Spectrum(TwoRows):
    def forward(self, x):
        return self.last(torch.special.bessel_j0(x).flatten(1))


def rounded_own():
    model = Own()
    model.last = Quantised(model.last, 8)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Branching, "answers 5 rows unlike the model"),
        (Spectrum, "torch.onnx.export cannot write this Spectrum: Exporting the operator 'aten::special_bessel_j0'"),
        (rounded_own, "Own has no ONNX form here.*: export before quantising"),
        (
            lambda: nn.Sequential(Quantised(nn.Conv2d(1, 2, 3, padding="same"), 8)),
            "padding by numbers, got padding='same'",
        ),
        (
            lambda: nn.Sequential(Quantised(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), 8)),
            "padded by zeros, got circular",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).double(),
            "1.weight is torch.float64, .* use model.float",
        ),
    ],
    ids=["branch", "operator", "own and rounded", "same", "circular", "float64"],
)
def test_what_has_no_form_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        onnx_bytes(build().eval(), (1, 8, 8))
