"""The nodes of a cluster that take part in a run: found, checked, and replaced when they are lost."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from aisec_lab.workbench.repro.agent import agent_class
from aisec_lab.workbench.repro.node import Description
from aisec_lab.workbench.repro.source import ProjectSource

SLOTS = "aisec_slots"  # Ray's resource of which a node that runs stages has as many as it runs at once
JOIN = 60.0  # seconds that the first nodes have to begin
WATCH = 2.0  # seconds between two looks for new nodes
PROJECT = "AISEC_PROJECT"  # in the environment of agents: the node's own copy of the project
LOG = logging.getLogger(__name__)
STARTS, TAKES_PART = "has not begun: another run may use it", ""


class LostError(Exception):
    """A node is gone, with all that it did."""


class Member(NamedTuple):
    """A node that takes part.

    Args:
        identity: Ray's name of it.
        name: its machine's.
        slots: tasks that it runs at once.
        agent: Ray's handle of what runs there.
        remote: whether its own copy of the project has a default DVC remote.
    """

    identity: str
    name: str
    slots: int
    agent: Any
    remote: bool = False

    def call(self, method: str, *arguments: object) -> Any:
        """What a method of its `node.Node` returns.

        Raises:
            LostError: the node is gone.
            ValueError: the method raised something.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(self.agent.call.remote(method, *arguments))
        except RayTaskError as error:
            raise ValueError(f"node {self.name}: {error.cause}") from error
        except RayError as error:
            raise LostError(f"node {self.name} is lost ({type(error).__name__})") from error


class ClusterMembers:
    """Who takes part now, and how many tasks each of them runs; its methods may be called from several threads.

    Args:
        source: the project's source, which each gets.
        packages: as this machine has them and each must: with others, results have other bits.

    Raises:
        ValueError: no node can take part.
    """

    def __init__(self, source: ProjectSource, packages: Mapping[str, str]) -> None:
        import ray

        self.source, self.packages = source, packages
        self.archive = ray.put(source.archive)
        self.changed = threading.Condition()
        self.free: dict[Member, int] = {}  # from who takes part to the tasks that could begin there now
        self.known: dict[str, tuple[str, str]] = {}  # by identity: the name, and why it does not take part
        self.agents: list[Any] = []  # all that were started
        self.last = time.monotonic()  # when somebody took part
        self.closed = threading.Event()
        self._look()
        with self.changed:
            self.changed.wait_for(lambda: all(why != STARTS for _, why in self.known.values()), JOIN)
        if not self.free:
            raise ValueError(self.nobody())
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    @property
    def slots(self) -> int:
        """Tasks that all together run at once."""
        with self.changed:
            return sum(member.slots for member in self.free)

    def acquire(self) -> Member:
        """A place for a task, on the member with the most of them; waits until there is one.

        Raises:
            LostError: `close` was called.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closed.is_set() or any(self.free.values()))
            if self.closed.is_set():
                raise LostError("the run is over")
            member = max(self.free, key=lambda each: self.free[each])
            self.free[member] -= 1
            return member

    def release(self, member: Member) -> None:
        """Give a place back."""
        with self.changed:
            if member in self.free:
                self.free[member] += 1
            self.changed.notify_all()

    def drop(self, member: Member) -> None:
        """Exclude a member; if its node still runs, it joins again as a new member."""
        import ray

        with self.changed:
            if self.free.pop(member, None) is not None:
                self.last = time.monotonic()
                del self.known[member.identity]
        ray.kill(member.agent)

    def close(self, seconds: float, *, reachable: bool) -> None:
        """End all that runs.

        Args:
            seconds: that the members have for it.
            reachable: whether the cluster is; else they end by themselves.
        """
        import ray

        with self.changed:
            self.closed.set()
            members = list(self.free)
            self.free.clear()
            self.changed.notify_all()
        self.watch.join()
        if not reachable:
            return
        stopping = [member.agent.call.remote("stop") for member in members]
        ray.wait(stopping, num_returns=len(stopping), timeout=seconds)
        for agent in self.agents:
            ray.kill(agent)

    def alone(self) -> float:
        """Seconds since somebody took part; 0 while somebody does."""
        with self.changed:
            return 0.0 if self.free else time.monotonic() - self.last

    def nobody(self) -> str:
        """Why no node takes part."""
        with self.changed:
            reasons = "; ".join(f"{name} {why}" for name, why in self.known.values())
        return f"no node of the cluster runs stages: {reasons or 'start some with `aisec node --address HOST:PORT`'}"

    def _watch(self) -> None:
        import grpc

        while not self.closed.wait(WATCH):
            try:
                self._look()
            except (ConnectionError, ValueError, grpc.RpcError):  # as Ray's client raises them
                return  # the cluster is lost: calls that wait for one of its nodes raise that

    def _look(self) -> None:
        """Have each new node begin."""
        import ray

        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get(SLOTS)}
        with self.changed:
            for identity in [one for one, (_, why) in self.known.items() if one not in alive and why != TAKES_PART]:
                del self.known[identity]
            new = [node for identity, node in alive.items() if identity not in self.known]
            for node in new:
                self.known[node["NodeID"]] = _name(node), STARTS
        for node in new:
            threading.Thread(target=self._join, args=(node,), daemon=True).start()

    def _join(self, node: Mapping[str, Any]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        identity, slots = node["NodeID"], int(node["Resources"][SLOTS])
        remote: Any = ray.remote(agent_class())
        agent = remote.options(
            num_cpus=slots,
            resources={SLOTS: slots},  # all of them: one run at a time
            max_concurrency=slots + 2,
            scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False),
        ).remote(self.archive, self.source.name, slots, os.environ.get("OMP_NUM_THREADS"))
        member = Member(identity, _name(node), slots, agent)
        self.agents.append(agent)
        try:
            description: Description = member.call("describe")
            member = member._replace(remote=description.remote)
            why = difference(self.packages, description.packages)
        except (LostError, ValueError) as error:
            why = str(error)
        if why != TAKES_PART:
            ray.kill(agent)
        with self.changed:
            if self.closed.is_set():
                return
            self.known[identity] = member.name, why
            if why == TAKES_PART:
                self.free[member] = slots
            else:
                LOG.warning("aisec: node %s takes no part: %s", member.name, why)
            self.changed.notify_all()


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Why a node with other packages does not take part; nothing where they are the same."""
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            versions = f"{name} {there.get(name, 'missing')}, here {here.get(name, 'missing')}"
            return f"has another environment ({versions}): `make setup` in both copies"
    return TAKES_PART


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
