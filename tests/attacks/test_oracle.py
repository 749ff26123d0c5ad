"""The oracle: what it publishes, what it counts, what it refuses."""

import pytest
import torch

from aisec_lab.attacks import Linf, Oracle, Square


def test_it_publishes_scores_or_labels_and_no_gradient(cnn, sample):
    """Scores are the model's own; labels are a one in the place of the winner."""
    x = sample[0].clone().requires_grad_()
    scores, labels = Oracle(cnn)(x), Oracle(cnn, labels_only=True)(x)
    assert torch.equal(scores, cnn(x))
    assert not scores.requires_grad
    assert torch.equal(labels.argmax(1), scores.argmax(1))
    assert torch.equal(labels.sort(dim=1).values[:, -2:], torch.tensor([0.0, 1.0]).expand(len(x), 2))


def test_it_answers_as_many_rows_as_its_budget_and_no_part_of_a_query_beyond(cnn, sample):
    """What is refused is neither counted nor seen by a monitor; what is left can still be asked."""
    seen = []
    oracle = Oracle(cnn, budget=10, client="mallory", monitors=[lambda *query: seen.append(query)])
    oracle(sample[0][:7])
    with pytest.raises(RuntimeError, match="mallory asks for 4 rows, 3 of 10 are left"):
        oracle(sample[0][:4])
    assert oracle.queries == 7
    answer = oracle(sample[0][:3])
    assert oracle.queries == 10
    assert [(client, len(x)) for client, x, _ in seen] == [("mallory", 7), ("mallory", 3)]
    assert torch.equal(seen[1][2], answer)


def test_a_monitor_that_raises_withholds_the_answer_and_the_query_counts(cnn, sample):
    """As an account that is locked."""

    def lock(client, x, answer):
        raise PermissionError(f"{client} is locked out")

    oracle = Oracle(cnn, monitors=[lock])
    with pytest.raises(PermissionError, match="attacker is locked out"):
        oracle(sample[0][:2])
    assert oracle.queries == 2


def test_black_box_attacks_take_it_for_a_classifier(cnn, sample, seed):
    """The same points as on the model itself, and a budget of queries for each row is enough."""
    x, y = sample[0][:40], sample[1][:40]
    attack = Square(Linf(0.15), queries=30)
    oracle = Oracle(cnn, budget=30 * 40)
    assert torch.equal(attack(oracle, x, y, generator=seed(0)), attack(cnn, x, y, generator=seed(0)))
    assert 40 < oracle.queries < 30 * 40


def test_a_model_in_training_mode_is_no_less_so_behind_an_oracle(cnn, sample, seed):
    """The door sees through it."""
    cnn.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            Square(Linf(0.1))(Oracle(cnn), *sample, generator=seed(0))
    finally:
        cnn.eval()


def test_a_negative_budget_is_refused(cnn):
    """Zero is a budget, though a small one."""
    with pytest.raises(ValueError, match="got -1"):
        Oracle(cnn, budget=-1)
    with pytest.raises(RuntimeError, match="0 of 0 are left"):
        Oracle(cnn, budget=0)(torch.zeros(1, 1, 8, 8))
