"""Whole federations beside Flower's: its strategies over the same clients, their messages passed in this process.

Flower's own engine starts processes, may begin before all its clients have registered and takes replies in the order
in which they come: its results differ from run to run. Its strategies are what is compared.
"""

import copy
import os
from typing import NamedTuple

import numpy as np
import pytest
import torch

from aisec_lab.models import MLP
from aisec_lab.privacy.federated.client_update import ClientUpdate
from aisec_lab.privacy.federated.federation import Federation
from aisec_lab.privacy.federated.rules import AggregationRule, FedAvg, Krum, Median, TrimmedMean
from aisec_lab.privacy.federated.split import Dirichlet
from tests.privacy.test_federated import hospitals, seed

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg
from flwr.serverapp.strategy import FedMedian, FedProx, FedTrimmedAvg, MultiKrum
from flwr.serverapp.strategy import Krum as FlowersKrum
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.supercore.task_identity import TaskIdentity


class Here(Grid):
    """A grid whose nodes answer in this process, in order."""

    def __init__(self, model, client_update, clients, rounds, weighted):
        self.model, self.client_update, self.clients, self.rounds, self.weighted = (
            model,
            client_update,
            clients,
            rounds,
            weighted,
        )

    def get_node_ids(self):
        return range(1, len(self.clients) + 1)

    def send_and_receive(self, messages, *, timeout=None):
        return [self.answered(message) for message in messages]

    def answered(self, message):
        client = message.metadata.dst_node_id - 1
        model = copy.deepcopy(self.model)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        update = self.client_update(model, self.clients[client], rounds=self.rounds, generator=seed(0))
        start = torch.nn.utils.parameters_to_vector(model.parameters())
        torch.nn.utils.vector_to_parameters((start + update).detach(), model.parameters())
        count = len(self.clients[client]) if self.weighted else 1
        answer = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": count})}
        return Message(RecordDict(answer), reply_to=message)

    def set_run(self, run):
        raise NotImplementedError

    run = property(set_run)
    create_message = push_messages = pull_messages = set_run


class Case(NamedTuple):
    rule: AggregationRule
    flowers: type
    settings: dict[str, object]
    proximal: float = 0.0


CASES = [
    Case(FedAvg(), FlowersFedAvg, {}),
    Case(FedAvg(), FedProx, {"proximal_mu": 0.3}, 0.3),
    Case(Krum(2), FlowersKrum, {"num_malicious_nodes": 2}),
    Case(Krum(2, kept=3), MultiKrum, {"num_malicious_nodes": 2, "num_nodes_to_select": 3}),
    Case(TrimmedMean(2), FedTrimmedAvg, {"beta": 2 / 7}),
    Case(Median(), FedMedian, {}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.flowers.__name__)
def test_rounds_are_those_of_flower(case, monkeypatch):
    """Three rounds of seven clients end with the same weights; each client's batch is all its rows."""
    clients = Dirichlet(7, 1.0)(hospitals().train, generator=seed(0))
    client_update = ClientUpdate(epochs=2, batch_size=1000, learning_rate=0.5, proximal=case.proximal)
    model = MLP(())((30,), 2, generator=seed(1))
    grid = Here(copy.deepcopy(model), client_update, clients, 3, weighted=isinstance(case.rule, FedAvg))
    for name in ("_task_id", "_run_id", "_node_id"):  # of the process, which has none outside Flower's engine
        monkeypatch.setattr(TaskIdentity, name, 0)
    strategy = case.flowers(fraction_evaluate=0.0, min_available_nodes=7, **case.settings)
    result = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=3)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    ours = Federation(3, client_update, case.rule)(model, clients, generator=seed(0)).weights[-1]
    theirs = result.arrays.to_torch_state_dict()
    flat = torch.cat([theirs[name].flatten() for name, _ in model.named_parameters()])
    assert (flat - before).norm() > 0.5
    torch.testing.assert_close(ours, flat, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("number", range(20))
def test_rules_are_those_of_flower_on_any_updates(number):
    """One update far out or not; float64, so that the order of sums shows nothing."""
    generator = seed(number)
    n, f = 5 + number % 6, 1 + number % 2 * (number % 6 >= 2)
    updates = torch.randn(n, 40, dtype=torch.float64, generator=generator)
    updates[:f] *= 10.0 ** (number % 3)
    rows = torch.ones(n)
    contents = [RecordDict({"arrays": ArrayRecord([row.numpy()])}) for row in updates]
    for kept in (1, 3):
        chosen = [contents.index(content) for content in select_multikrum(contents, f, kept)]
        assert Krum(f, kept).select(updates).tolist() == chosen
    trimmed = trim_mean(updates.numpy(), (f + 0.5) / n)
    np.testing.assert_allclose(TrimmedMean(f)(updates, rows).numpy(), trimmed, rtol=1e-12)
    np.testing.assert_allclose(Median()(updates, rows).numpy(), np.median(updates.numpy(), axis=0), rtol=1e-12)
