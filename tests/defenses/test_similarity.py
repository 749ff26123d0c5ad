"""Monitors of similarity: hashes against a second implementation, graphs against networkx-free bookkeeping by hand."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aisec_lab.attacks import L2, EvadeDetector, HopSkipJump, Linf, Oracle, Square
from aisec_lab.defenses import PIHA, QPA, Blacklight
from aisec_lab.defenses.monitors import piha
from aisec_lab.defenses.monitors.piha import hue, local_binary_patterns, perceptual_hash
from aisec_lab.defenses.monitors.similarity import SimilarityMonitor
from aisec_lab.evaluation import honest_streams

KEY = bytes(range(16))


def seed(value):
    return torch.Generator().manual_seed(value)


def hash_by_hand(image, block):
    """PIHA's hash of one image (C, H, W), pixel by pixel: smooth, take the hue, sum blocks, read the circle."""
    channels, height, width = image.shape

    def inside(place, size):  # reflection at the border, which is not repeated
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    weight = [math.exp(-(step**2) / 2) for step in (-1, 0, 1)]
    total = sum(weight)
    plane = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            smooth = [
                sum(
                    weight[1 + down] * weight[1 + right] / total**2
                    * float(image[channel, inside(i + down, height), inside(j + right, width)])
                    for down in (-1, 0, 1)
                    for right in (-1, 0, 1)
                )
                for channel in range(channels)
            ]  # fmt: skip
            plane[i, j] = 360 * colorsys.rgb_to_hsv(*smooth)[0] if channels == 3 else smooth[0]
    rows, columns = -(-height // block), -(-width // block)
    sums = np.zeros((rows + 2, columns + 2))  # a border of zeros
    for i in range(height):
        for j in range(width):
            sums[1 + i // block, 1 + j // block] += plane[i, j]
    codes = []
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            code = 0
            for point in range(8):
                down, right = i + math.sin(point * math.pi / 4), j + math.cos(point * math.pi / 4)
                top, left = min(math.floor(down + 1e-9), rows), min(math.floor(right + 1e-9), columns)
                low, near = down - top, right - left
                value = (
                    (1 - low) * (1 - near) * sums[top, left]
                    + (1 - low) * near * sums[top, left + 1]
                    + low * (1 - near) * sums[top + 1, left]
                    + low * near * sums[top + 1, left + 1]
                )
                code += 2**point * (value >= sums[i, j] - 1e-6)
            codes.append(code)
    return codes


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 9, 7), (3, 8, 8), (3, 5, 9)])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_perceptual_hash_is_that_of_a_second_implementation(shape, block):
    """Grey and coloured images, also where the last blocks are not full."""
    x = torch.rand(5, *shape, generator=seed(0))
    x[0] = 0.5  # flat: all patterns inside are equal
    x[1, :, :4] = 0
    expected = torch.tensor([hash_by_hand(image.double(), block) for image in x])
    assert torch.equal(perceptual_hash(x, block).long(), expected)


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
@settings(max_examples=50)
def test_a_hue_is_that_of_the_standard_library(colour):
    """In degrees; also of colours with two equal parts."""
    x = torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1)
    got = float(hue(x))
    assert 0 <= got < 360 + 1e-9
    assert math.isclose(got % 360, (360 * colorsys.rgb_to_hsv(*x.flatten().tolist())[0]) % 360, abs_tol=1e-6)


def test_patterns_do_not_depend_on_brightness_or_contrast():
    """Inside, a brighter image with more contrast has the same order of values, hence the same patterns."""
    cells = torch.rand(4, 1, 6, 6, generator=seed(0), dtype=torch.float64)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert torch.equal(local_binary_patterns(cells)[inner], local_binary_patterns(3 * cells + 7)[inner])
    assert (local_binary_patterns(torch.ones(1, 1, 3, 3, dtype=torch.float64))[0, 1, 1] == 255).all()


def test_piha_finds_the_most_similar_earlier_image(splits, monkeypatch):
    """Against a comparison with all earlier ones; with little memory, against a comparison with the latest."""
    x = splits.train.x[:60]
    stream = torch.cat([x, (x + 0.02 * torch.rand(x.shape, generator=seed(0))).clamp(0, 1), x[:10]])
    hashes = perceptual_hash(stream, 2)
    assert [similarity for similarity, _ in PIHA(block=2).nearest("alice", stream)[-10:]] == [1.0] * 10
    for kept in (1000, 17):
        monkeypatch.setattr(piha, "REMEMBERED", kept)
        expected = []
        for number, own in enumerate(hashes):
            first = max(0, number - kept)
            equal = [int((own == other).sum()) for other in hashes[first:number]]
            most = max(equal, default=0)
            latest = max((first + place for place, count in enumerate(equal) if count == most), default=-1)
            expected.append((most / hashes.shape[1], latest if most else -1))
        assert PIHA(block=2).nearest("alice", stream) == expected


class Scripted(SimilarityMonitor):
    """Similarities and nearest queries that a test names."""

    def __init__(self, script, shared=True):
        super().__init__(0.5, shared, False)
        self.script = iter(script)

    def nearest(self, client, x):
        return [next(self.script) for _ in x]


def test_qpa_adds_up_the_similarities_of_each_graph():
    """Two graphs that grow in turn; a similarity at the level of a link links nothing."""
    script = [(0.0, -1), (0.8, 0), (0.3, 1), (0.6, 2), (0.9, 1), (0.5, 3), (1.0, 3)]
    monitor = QPA(Scripted(script), 1.6, link=0.3)
    x, answers = torch.zeros(7, 1), torch.zeros(7, 2)
    scores = list(monitor.scores("alice", x, answers))
    assert scores == pytest.approx([0, 0.8, 0, 0.6, 1.7, 1.1, 2.1])
    again = QPA(Scripted(script), 1.6, link=0.3)
    assert again("alice", x, answers).tolist() == [False, False, False, False, True, False, True]
    assert again.alarms == {"alice": 4}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30)), max_size=30), st.floats(0, 0.99))
def test_a_graph_of_queries_is_a_connected_component(draws, link):
    """Against the components of all links, found anew for each query; the score is the sum of their similarities."""
    script = [
        (similarity if number else 0.0, min(place, number - 1)) for number, (similarity, place) in enumerate(draws)
    ]
    scores = QPA(Scripted(script), 0, link=link).scores("a", torch.zeros(len(script), 1), torch.zeros(len(script), 2))
    edges = [(number, near, similarity) for number, (similarity, near) in enumerate(script) if similarity > link]
    for number, score in enumerate(scores):
        so_far = [edge for edge in edges if edge[0] <= number]
        reached, size = {number}, 0
        while size < len(reached):
            size = len(reached)
            reached |= {node for one, other, _ in so_far for node in (one, other) if {one, other} & reached}
        assert math.isclose(score, sum(weight for one, _, weight in so_far if one in reached), abs_tol=1e-9)


MONITORS = {
    "blacklight": lambda shared=False: Blacklight(KEY, shared=shared),
    "piha": lambda shared=False: PIHA(block=1, shared=shared),
    "qpa": lambda shared=False: QPA(Blacklight(KEY, shared=shared), 8, link=0.2),
}


@pytest.mark.parametrize("name", MONITORS)
def test_batches_and_other_clients_change_nothing_unless_shared(name, splits):
    """The same records row by row, between the queries of others; a shared memory sees the second account."""
    x, answers = splits.train.x[:80], torch.zeros(80, 10)
    x = torch.cat([x, x + 0.001]).clamp(0, 1)
    answers = torch.zeros(len(x), 10)
    alone, shared = MONITORS[name](), MONITORS[name](shared=True)
    flags = alone("at once", x, answers)
    for row in range(len(x)):
        own = alone("row by row", x[row : row + 1], answers[:1])
        assert own.item() == flags[row].item()
        alone("another", 1 - x[row : row + 1], answers[:1])
    assert alone.records["at once"] == alone.records["row by row"]
    for client in ("first account", "second account"):
        shared(client, x[:80], answers[:80])
    highest = {client: records[-1][1] for client, records in shared.records.items()}
    assert highest["second account"] > highest["first account"]


@pytest.mark.parametrize("name", MONITORS)
@pytest.mark.parametrize(
    "attack",
    [Square(Linf(0.2), queries=100, goal=EvadeDetector()), HopSkipJump(L2(1), queries=150, goal=EvadeDetector())],
    ids=lambda attack: type(attack).__name__,
)
def test_a_plain_attack_is_flagged_and_an_honest_client_hardly_ever(name, attack, classifier, splits):
    """The threshold is the highest score of twenty honest clients; others stay below it, the attack does not."""
    honest = honest_streams(classifier, splits.train, clients=40, queries=60, generator=seed(0))
    monitor = MONITORS[name]()
    for stream in honest:
        monitor(stream.client, stream.x, stream.answers)
    highest = [monitor.records[stream.client][-1][1] for stream in honest]
    threshold = max(highest[:20])
    assert sum(score > threshold for score in highest[20:]) <= 4  # 1 in 21 each: more than 4 of 20 has p < .004
    found = 0
    for row in range(4):
        client = f"mallory {row}"
        oracle = Oracle(classifier, client=client, monitors=[monitor], rejects=True)
        attack(oracle, splits.test.x[row : row + 1], splits.test.y[row : row + 1], generator=seed(row))
        found += monitor.records[client][-1][1] > threshold
    assert found >= 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PIHA(1.0), r"threshold must lie in \[0, 1\)"),
        (lambda: PIHA(block=0), "block be at least 1, got 0.95 and 0"),
        (lambda: PIHA()("a", torch.zeros(1, 5), torch.zeros(1, 2)), r"images .* got \(1, 5\): take Blacklight"),
        (lambda: PIHA()("a", torch.zeros(1, 2, 8, 8), torch.zeros(1, 2)), "1 or 3 channels"),
        (lambda: PIHA()("a", torch.zeros(1, 1, 1, 8), torch.zeros(1, 2)), "at least 2 x 2"),
        (lambda: QPA("blacklight", 1, link=0.2), "a Blacklight or a PIHA, got a str"),
        (lambda: QPA(PIHA(), -1, link=0.2), "threshold must be at least 0"),
        (lambda: QPA(PIHA(), 1, link=1.0), r"link lie in \[0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    """With what was given and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make()
