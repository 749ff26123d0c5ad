"""The oracle: what it publishes, what it counts, what it refuses."""

import pytest
import torch
from torch import nn

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


def test_what_a_monitor_withholds_is_not_counted(cnn, sample):
    """As an account that is locked: nothing was answered, and the budget is as it was."""

    def lock(client, x, answer):
        raise PermissionError(f"{client} is locked out")

    oracle = Oracle(cnn, monitors=[lock], budget=2)
    for _ in range(2):
        with pytest.raises(PermissionError, match="attacker is locked out") as raised:
            oracle(sample[0][:2])
    assert oracle.queries == 0
    assert oracle.error is raised.value


LOST = ConnectionError("connection lost")


class Failing(nn.Module):
    """A victim whose calls of these numbers fail."""

    def __init__(self, model, failing, error=LOST):
        super().__init__()
        self.model, self.failing, self.error, self.calls, self.training = model, set(failing), error, 0, False

    def forward(self, x):
        self.calls += 1
        if self.calls in self.failing:
            raise self.error
        return self.model(x)


def test_a_call_that_fails_is_tried_again_and_counts_when_it_is_answered(cnn, sample):
    """Twice the connection is lost, the third attempt is answered; with two attempts it is an error, of no cost."""
    x, seen = sample[0][:5], []
    oracle = Oracle(Failing(cnn, {1, 2}), attempts=3, wait=0, monitors=[lambda *query: seen.append(query)])
    assert torch.equal(oracle(x), cnn(x).detach())
    assert (oracle.queries, oracle.error, len(seen)) == (5, None, 1)
    twice = Oracle(Failing(cnn, {1, 2}), attempts=2, wait=0)
    with pytest.raises(ConnectionError, match="connection lost"):
        twice(x)
    assert (twice.queries, twice.model.calls) == (0, 2)
    assert twice(x).shape == (5, 10)
    assert (twice.queries, twice.error) == (5, None)


@pytest.mark.parametrize("error", [ValueError("wrong"), PermissionError("forbidden"), KeyError("x")], ids=repr)
def test_what_another_attempt_cannot_mend_is_not_tried_again(error, cnn, sample):
    oracle = Oracle(Failing(cnn, {1}, error), attempts=5, wait=0)
    with pytest.raises(type(error)):
        oracle(sample[0][:5])
    assert oracle.model.calls == 1


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
