"""Victims as people have them: what they publish is declared, checked at the door, and never softmaxed twice."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from aisec_lab.attacks import (
    L2,
    NES,
    FunctionClassifier,
    GradientInversion,
    GradientRecorder,
    HopSkipJump,
    HTTPClassifier,
    Knockoff,
    LabelOnly,
    LinearExtraction,
    Linf,
    LossSignal,
    Oracle,
    PriorInversion,
    SklearnClassifier,
    TreeExtraction,
)
from aisec_lab.attacks.answers import read_answers
from aisec_lab.attacks.extraction.data_free import DataFree
from aisec_lab.attacks.extraction.result import published_probabilities
from aisec_lab.attacks.inference.attributes import CSMIA, Fredrikson, SensitiveAttribute
from aisec_lab.attacks.inference.inversion import MIFace
from aisec_lab.attacks.inference.shadow_classifier import ShadowClassifier
from aisec_lab.data import Dataset
from aisec_lab.evaluation import fidelity, transfer
from aisec_lab.models import MLP, Fit, TwoLogits, logits_of
from tests.odd_models import Answer

COPY = Knockoff(MLP((32,)), 200, Fit(epochs=8, batch_size=32, learning_rate=0.02))


def softmaxed(model):
    return Answer(model, lambda logits: logits.softmax(1))


@pytest.fixture(scope="module")
def rows():
    """All digits as a table of 64 columns in [0, 1]."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture(scope="module")
def pool(digits):
    return Dataset(digits[0][200:600], digits[1][200:600], tuple("0123456789"), "digits")


def test_probabilities_are_what_is_published_and_the_same_copy_is_learned(cnn, pool, sample, seed):
    """Declared, they are as good as logits; undeclared, they are refused before anything is learned."""
    oracle = Oracle(softmaxed(cnn), publishes="probabilities")
    truth = logits_of(cnn, pool.x).softmax(1)
    assert torch.allclose(published_probabilities(oracle, pool.x), truth, rtol=1e-5, atol=1e-9)
    assert torch.allclose(logits_of(oracle, pool.x).softmax(1), truth, rtol=1e-5, atol=1e-7)
    first, second = (COPY(each, pool, generator=seed(0)).model for each in (oracle, Oracle(cnn)))
    assert torch.allclose(logits_of(first, sample[0]), logits_of(second, sample[0]), atol=1e-2)
    for asks in (lambda: Oracle(softmaxed(cnn))(pool.x), lambda: published_probabilities(softmaxed(cnn), pool.x)):
        with pytest.raises(ValueError, match='publishes="probabilities"') as raised:
            asks()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("answers", [1, 3, 20])
def test_rounded_probabilities_are_found_out_and_logits_are_not(answers, cnn, sample):
    """Two decimals sum to one or nearly so; logits of the same rows, or of one logit and a zero, pass."""
    x = sample[0][:answers]
    rounded = Answer(softmaxed(cnn), lambda p: p.round(decimals=2 if answers == 20 else 7))
    with pytest.raises(ValueError, match="no logits"):
        Oracle(rounded)(x)
    assert torch.equal(Oracle(cnn)(x), cnn(x).detach())
    half = Oracle(Answer(cnn, lambda logits: F.pad(logits[:, :1] * 0 + 0.5, (1, 0))))
    assert half(x).tolist() == [[0, 0.5]] * answers


def test_zeros_are_published_as_zeros():
    """Those of a pure leaf; equations about odds then refuse the victim, and do not solve for a floor."""
    table = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    oracle = Oracle(FunctionClassifier(lambda x: table[: len(x)].numpy(), publishes="probabilities"))
    assert published_probabilities(oracle, torch.rand(2, 4)).tolist() == table.tolist()
    pool = Dataset(torch.rand(2, 1), torch.zeros(2, dtype=torch.int64), ("a", "b", "c"), "one column")
    with pytest.raises(ValueError, match="published probabilities are 0"):
        LinearExtraction(checks=0)(oracle, pool, generator=torch.Generator())


KINDS = {
    "lists": (lambda p: p.tolist(), "probabilities"),
    "float64": (lambda p: p.double().numpy(), "probabilities"),
    "half": (lambda p: p.half(), "probabilities"),
    "logits": (lambda p: p.log().numpy(), "logits"),
    "labels": (lambda p: p.argmax(1).numpy(), "labels"),
    "labels in a column": (lambda p: p.argmax(1)[:, None].float(), "labels"),
    "one-hot": (lambda p: F.one_hot(p.argmax(1), 3), "labels"),
    "probabilities for labels": (lambda p: p, "labels"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_of_an_answer_are_read_as_one_table(kind):
    p = torch.tensor([[0.5, 0.125, 0.375], [0.25, 0.5, 0.25]])
    change, publishes = KINDS[kind]
    model = FunctionClassifier(lambda x: change(p[: len(x)]), publishes=publishes, classes=3)
    told = published_probabilities(Oracle(model), torch.rand(2, 4))
    expected = F.one_hot(p.argmax(1), 3).float() if publishes == "labels" else p
    assert torch.allclose(told, expected, atol=1e-6)
    assert torch.equal(model(torch.rand(2, 4)).argmax(1), p.argmax(1))
    assert model(torch.rand(2, 4)).dtype == torch.float32
    only = Oracle(model, labels_only=True)
    assert torch.equal(published_probabilities(only, torch.rand(2, 4)), F.one_hot(p.argmax(1), 3).float())


def test_one_number_a_row_is_a_binary_model():
    """The probability of class 1, (N,) or (N, 1), in a function or a module; one logit needs its wrapper."""
    for shape in ((4,), (4, 1)):
        p = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(shape)
        for oracle in (
            Oracle(FunctionClassifier(lambda x, p=p: p.numpy(), publishes="probabilities")),
            Oracle(Answer(nn.Identity(), lambda x, p=p: p), publishes="probabilities"),
        ):
            assert published_probabilities(oracle, torch.rand(4, 3)).tolist() == [
                [1, 0],
                [0.75, 0.25],
                [0.5, 0.5],
                [0, 1],
            ]
        one = Answer(nn.Identity(), lambda x, p=p: p)
        for settings in ({}, {"labels_only": True}, {"publishes": "labels"}):
            with pytest.raises(ValueError, match="TwoLogits"):
                Oracle(one, **settings)(torch.rand(4, 3))
        assert Oracle(TwoLogits(one))(torch.rand(4, 3)).argmax(1).tolist() == [0, 1, 1, 1]


REFUSED = {
    "a tuple": (lambda n: (torch.zeros(n, 2), 1), "logits", "got a tuple"),
    "a dict": (lambda n: {"p": torch.zeros(n, 2)}, "logits", "got a dict"),
    "nothing": (lambda n: None, "logits", "got a NoneType"),
    "words": (lambda n: ["cat"] * n, "labels", "must be numbers"),
    "ragged lists": (lambda n: [[0.5, 0.5]] * (n - 1) + [[1.0]], "probabilities", "different lengths"),
    "NaN": (lambda n: np.full((n, 2), np.nan), "logits", "NaN or infinite"),
    "NaN in probabilities": (lambda n: np.full((n, 2), np.nan), "probabilities", "NaN or infinite"),
    "NaN under labels": (lambda n: np.full((n, 2), np.nan), "labels", "NaN or infinite"),
    "NaN for a label": (lambda n: np.full(n, np.nan), "labels", r"0\.\.1, got nan"),
    "a label beyond": (lambda n: np.full(n, 2), "labels", r"0\.\.1, got 2"),
    "half a label": (lambda n: np.full(n, 0.5), "labels", r"0\.\.1, got 0.5"),
    "too few rows": (lambda n: np.zeros((n - 1, 2)), "logits", r"of shape \(3, 2\)"),
    "maps": (lambda n: np.zeros((n, 2, 1, 1)), "logits", r"of shape \(4, 2, 1, 1\)"),
    "one logit": (lambda n: np.zeros((n, 1)), "logits", "TwoLogits"),
    "percent": (lambda n: np.full((n, 2), 50.0), "probabilities", "divide each row by its sum"),
    "logits for probabilities": (lambda n: np.tile([2.0, -1.0], (n, 1)), "probabilities", "leave publishes out"),
    "probabilities for logits": (lambda n: np.full((n, 2), 0.5), "logits", "no logits"),
    "other classes": (lambda n: np.full((n, 4), 0.25), "probabilities", "with 4 classes, not with 2"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_answer_is_refused_in_one_line_and_not_counted(what):
    answer, publishes, message = REFUSED[what]
    oracle = Oracle(FunctionClassifier(lambda x: answer(len(x)), publishes=publishes, classes=2), budget=4)
    with pytest.raises(ValueError, match=message) as raised:
        oracle(torch.rand(4, 3))
    assert "\n" not in str(raised.value)
    assert oracle.queries == 0


def test_answers_of_changing_classes_are_refused():
    oracle = Oracle(Answer(nn.Identity(), lambda x: -x[:, : len(x)]))
    oracle(torch.rand(3, 5))
    with pytest.raises(ValueError, match="with 3 classes, and now with 4"):
        oracle(torch.rand(4, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Oracle(lambda x: x), "got a function: wrap it in a FunctionClassifier"),
        (lambda: Oracle(nn.Identity(), publishes="scores"), "logits, probabilities, labels, got 'scores'"),
        (lambda: Oracle(nn.Identity(), attempts=0), "attempts must be at least 1"),
        (
            lambda: Oracle(FunctionClassifier(len, publishes="probabilities"), publishes="logits"),
            "publishes probabilities, got 'logits'",
        ),
        (lambda: FunctionClassifier(len, publishes="scores"), "got 'scores'"),
        (lambda: FunctionClassifier(len, publishes="labels", classes=1), "at least 2"),
        (lambda: FunctionClassifier(3, publishes="labels"), "got a int"),
        (lambda: FunctionClassifier(nn.Identity(), publishes="labels"), "torch module already"),
        (lambda: SklearnClassifier(LogisticRegression()), "call fit first"),
        (lambda: HTTPClassifier("file:///etc/passwd", publishes="labels"), "http or https"),
        (lambda: read_answers(np.zeros(3), torch.zeros(3, 2), "labels"), "give `classes`"),
    ],
)
def test_declarations_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


ESTIMATORS = {
    "forest": (RandomForestClassifier(20, random_state=0), "probabilities"),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)), "probabilities"),
    "svc": (LinearSVC(random_state=0), "logits"),
    "perceptron": (Perceptron(random_state=0), "logits"),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_publishes_what_it_predicts(name, rows):
    """Its own probabilities or decision values, and its own classes; also as labels, and from images."""
    (estimator, publishes), (x, y) = ESTIMATORS[name], rows
    estimator.fit(x[:600].numpy(), y[:600].numpy())
    model = SklearnClassifier(estimator)
    assert model.publishes == publishes
    told = published_probabilities(Oracle(model), x[600:].reshape(-1, 1, 8, 8))
    if publishes == "probabilities":
        assert np.allclose(told, estimator.predict_proba(x[600:].numpy()), atol=1e-6)
    assert told.argmax(1).tolist() == estimator.predict(x[600:].numpy()).tolist()
    labels = Oracle(SklearnClassifier(estimator, labels_only=True, rows=100))
    assert labels.labels_only
    assert torch.equal(labels(x[600:]).argmax(1), told.argmax(1))


def test_a_binary_estimator_has_two_columns(rows):
    x, y = rows[0], (rows[1] > 4).long()
    for estimator in (LinearSVC(random_state=0), LogisticRegression(max_iter=300)):
        estimator.fit(x[:600].numpy(), y[:600].numpy())
        assert SklearnClassifier(estimator)(x[600:]).argmax(1).tolist() == estimator.predict(x[600:].numpy()).tolist()


def test_exact_attacks_on_estimators(seed):
    """The parameters of a logistic regression, the thresholds of a tree: what the estimator says, the copy says."""
    x = torch.rand(400, 3, generator=seed(0))
    y = (x[:, 0] > 0.4).long() + (x[:, 1] > x[:, 2]).long()
    pool, test = Dataset(x[:50], y[:50], ("0", "1", "2"), "cube"), torch.rand(300, 3, generator=seed(1))
    regression = LogisticRegression().fit(x.numpy(), y.numpy())
    stolen = LinearExtraction()(Oracle(SklearnClassifier(regression)), pool, generator=seed(2))
    assert np.allclose(logits_of(stolen.model, test).softmax(1), regression.predict_proba(test.numpy()), atol=1e-4)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x.numpy(), y.numpy())
    oracle = Oracle(SklearnClassifier(tree))
    stolen = TreeExtraction()(oracle, pool, generator=seed(2))
    assert stolen.queries == oracle.queries
    assert np.allclose(published_probabilities(stolen.model, test), tree.predict_proba(test.numpy()), atol=1e-5)


def test_black_box_attacks_run_on_a_forest(rows, seed):
    """Decision-based, by scores, and membership by labels; zeros among its probabilities break nothing."""
    forest, x, y = RandomForestClassifier(10, random_state=0), *rows
    forest.fit(x[:600].numpy(), y[:600].numpy())
    oracle, some = Oracle(SklearnClassifier(forest)), x[:6]
    own = oracle(some).argmax(1)
    found = HopSkipJump(L2(0.0), queries=60, samples=10)(oracle, some, own, generator=seed(0))
    assert (oracle(found.x_adv).argmax(1) != own).all()
    assert NES(Linf(0.3), queries=40)(oracle, some, own, generator=seed(0)).isfinite().all()
    assert LabelOnly()(oracle, some, own, generator=seed(0)).max() <= 1


@pytest.mark.parametrize("name", ["partial tree", "data-free"])
def test_other_thieves_keep_what_was_answered_too(name, cnn, seed):
    """The victim fails at a call in the middle; of a tree, the cuts until then are the victim's own."""
    calls = 0

    def failing(logits):
        nonlocal calls
        calls += 1
        if calls > limit:
            raise TimeoutError("no answer in time")
        return logits

    x = torch.rand(300, 2, generator=seed(0))
    if name == "data-free":
        limit, attack, victim = 60, DataFree(MLP((32,)), budget=12_000), cnn
        pool = Dataset(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), tuple("0123456789"), "shape")
    else:
        limit, attack = 100, TreeExtraction(rows=0, probes=0)
        cells = torch.rand(64, 3, generator=seed(1)).log_softmax(1)
        victim = Answer(nn.Identity().eval(), lambda x: cells[(x * 8).long().clamp(max=7) @ torch.tensor([8, 1])])
        pool = Dataset(x, torch.zeros(300, dtype=torch.int64), ("a", "b", "c"), "square")
    oracle = Oracle(Answer(victim, failing))
    with pytest.warns(RuntimeWarning, match="TimeoutError: no answer in time"):
        stolen = attack(oracle, pool, generator=seed(2))
    assert isinstance(stolen.error, TimeoutError)
    assert stolen.queries == oracle.queries > 0
    assert not stolen.model.training
    if name == "partial tree":
        eighths = 8 * stolen.model.threshold
        inner = stolen.model.branches[:, 0] != torch.arange(len(eighths))
        assert 1 < len(stolen.model.leaves) < 64
        assert (eighths[inner] - eighths[inner].round()).abs().max() < 1e-4, "a cut that is none of the victim's"


READERS = {
    "a signal": lambda p, y, x: LossSignal()(p, y),
    "shadow answers": lambda p, y, x: ShadowClassifier()(
        p, y, p[None].repeat(2, 1, 1), torch.tensor([[True], [False]]).repeat(1, len(y)), generator=torch.Generator()
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_who_reads_logits_refuses_probabilities(name, cnn, sample):
    x, y = sample[0][:50], sample[1][:50]
    with pytest.raises(ValueError, match="no logits"):
        READERS[name](logits_of(cnn, x).softmax(1), y, x)


def test_inference_refuses_models_that_answer_with_probabilities(cnn, sample, seed):
    x, y = sample[0][:20], sample[1][:20]
    with pytest.raises(ValueError, match="no logits"):
        MIFace(steps=2)(softmaxed(cnn), y, start=x)
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), softmaxed(cnn)).eval()
    bit = SensitiveAttribute((3,), torch.tensor([[0.0], [1.0]]), ("0", "1"))
    with pytest.raises(ValueError, match="no logits"):
        CSMIA()(flat, x.flatten(1), y, bit)
    known = {"prior": torch.tensor([0.5, 0.5]), "confusion": torch.full((10, 10), 0.1)}
    guesses = [Fredrikson()(model, x.flatten(1), y, bit, **known) for model in (flat, Oracle(flat, labels_only=True))]
    assert torch.equal(*guesses), "winning classes are all that it looks at"


def test_inference_by_gradients_refuses_who_only_answers(cnn, sample):
    x, y = sample[0][:2], sample[1][:2]
    gradients = [torch.zeros_like(weight) for weight in cnn.parameters()]
    for attack in (
        lambda: MIFace(steps=2)(Oracle(cnn), y, start=x),
        lambda: PriorInversion(steps=2)(Oracle(cnn), y, mean=x[0]),
        lambda: GradientInversion()(Oracle(cnn), gradients, y=y, shape=(1, 8, 8), rows=2, generator=torch.Generator()),
        lambda: GradientRecorder(Oracle(cnn), None, 1, 1.0, x[:1]),
    ):
        with pytest.raises(ValueError, match="shows answers and nothing of its inside"):
            attack()


def test_fidelity_is_between_classifiers_of_two_logits_or_more(cnn, sample):
    """One logit has its only column for a winner, on every row: such a copy would be the victim's equal."""
    x, y = sample
    data = Dataset(x, y, tuple("0123456789"), "digits")
    one = Answer(cnn, lambda z: z[:, :1])
    assert fidelity(cnn, Oracle(softmaxed(cnn), publishes="probabilities"), x)["value"] == 1
    for measure in (
        lambda: fidelity(one, one, x),
        lambda: fidelity(cnn, one, x),
        lambda: transfer(None, cnn, one, data, seed=0),
    ):
        with pytest.raises(ValueError, match="TwoLogits"):
            measure()
    with pytest.raises(ValueError, match="got a tuple"):
        fidelity(Answer(cnn, lambda z: (z, z)), cnn, x)


class Service(BaseHTTPRequestHandler):
    """A model behind HTTP; its faults are those of the server's list, one a request, then it answers."""

    def do_POST(self):
        server = self.server
        instances = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        server.seen.append((len(instances), self.headers.get("Authorization")))
        fault = server.faults.pop(0) if server.faults else None
        if fault == "slow":
            time.sleep(0.5)
        if fault == "hang up":
            return
        body = b"<html>" if fault == "page" else json.dumps({"predictions": server.answer(instances)}).encode()
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Length", str(len(body) + (9 if fault == "cut" else 0)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def service(cnn, monkeypatch):
    """A server in a thread, on a port of its own, that answers with the CNN's probabilities."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.seen, server.faults = [], []
    server.answer = lambda instances: logits_of(cnn, torch.tensor(instances)).softmax(1).tolist()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1/models/cnn:predict"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_is_asked_so_many_rows_at_once_and_copied(service, cnn, pool, seed):
    """With its key; the copy is the one that the model itself would have given."""
    victim = HTTPClassifier(service.url, publishes="probabilities", rows=60, headers={"Authorization": "Bearer key"})
    oracle = Oracle(victim, budget=200)
    stolen = COPY(oracle, pool, generator=seed(0))
    assert service.seen == [(60, "Bearer key")] * 3 + [(20, "Bearer key")]
    assert (stolen.queries, stolen.error) == (200, None)
    own = COPY(Oracle(cnn), pool, generator=seed(0))
    assert torch.allclose(logits_of(stolen.model, pool.x), logits_of(own.model, pool.x), atol=1e-2)


@pytest.mark.parametrize("fault", [503, 429, "hang up", "cut", "slow"])
def test_a_passing_fault_is_tried_again_for_the_rows_it_struck_alone(fault, service, cnn, pool):
    """The second of three requests fails once; with one attempt, it is an error that names what happened."""
    victim = HTTPClassifier(service.url, publishes="probabilities", rows=10, timeout=0.25)
    x = pool.x[:30]
    service.faults[:] = [None, fault]
    oracle = Oracle(victim, attempts=2, wait=0)
    assert torch.allclose(published_probabilities(oracle, x), logits_of(cnn, x).softmax(1), atol=1e-5)
    assert [n for n, _ in service.seen] == [10] * 4
    assert oracle.queries == 30
    service.faults[:] = [None, fault]
    once = Oracle(victim)
    with pytest.raises((ConnectionError, TimeoutError)) as raised:
        once(x)
    assert "\n" not in str(raised.value)
    assert once.queries == 10


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (403, PermissionError, "responds 403.*give `headers`"),
        (404, RuntimeError, "responds 404"),
        ("page", ValueError, "begins b'<html>'.*give a `decode`"),
    ],
)
def test_a_fault_that_stays_is_not_tried_again(fault, error, message, service, pool):
    service.faults[:] = [fault] * 3
    oracle = Oracle(HTTPClassifier(service.url, publishes="probabilities"), attempts=3, wait=0)
    with pytest.raises(error, match=message):
        oracle(pool.x[:5])
    assert len(service.seen) == 1
    assert oracle.queries == 0


def test_an_endpoint_of_another_form_is_read_by_functions(service, pool, cnn):
    """Labels under a name of their own; nobody there is an error of connection."""

    def classes(instances):
        return logits_of(cnn, torch.tensor(instances)).argmax(1).tolist()

    service.answer = lambda instances: [{"class": label} for label in classes(instances)]
    labels = HTTPClassifier(
        service.url,
        publishes="labels",
        classes=10,
        encode=lambda x: {"instances": x.round(6).tolist()},
        decode=lambda answer: [each["class"] for each in answer["predictions"]],
    )
    assert Oracle(labels)(pool.x[:40]).argmax(1).tolist() == classes(pool.x[:40].tolist())
    gone = HTTPClassifier("http://127.0.0.1:9/", publishes="labels", classes=10, timeout=1)
    with pytest.raises(ConnectionError, match="can't be reached"):
        gone(pool.x[:1])
