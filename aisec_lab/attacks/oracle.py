"""The victim as an attacker without its weights meets it: answers, counted, and no more than a budget of them."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Monitor = Callable[[str, Tensor, Tensor], None]  # client, queries (N, *input), published answers (N, K)


class Oracle(nn.Module):
    """What a victim publishes, and to whom: a classifier without gradients, so that every attack that needs none runs.

    The one mutable object of an attack: it counts each row that it answers.

    Args:
        model: the victim, a classifier.
        labels_only: publish the winning class alone, as a row of zeros with a one, and not the logits.
        budget: how many rows it answers in all; None for any number.
        client: who asks; the monitors are told.
        monitors: called, in order, with client, queries and answers, before an answer is handed out; one that
            raises withholds it.

    Raises:
        ValueError: a negative budget.
        RuntimeError: on a call that asks for more rows than are left; none of them is then answered or counted.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        labels_only: bool = False,
        budget: int | None = None,
        client: str = "attacker",
        monitors: Iterable[Monitor] = (),
    ) -> None:
        super().__init__()
        if budget is not None and budget < 0:
            raise ValueError(f"a budget is a number of rows >= 0, or None for no limit, got {budget}")
        self.model = model
        self.labels_only, self.budget = labels_only, budget
        self.client, self.monitors = client, tuple(monitors)
        self.queries = 0
        self.training = model.training

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Published scores (N, K) of x (N, *input)."""
        if self.budget is not None and self.queries + len(x) > self.budget:
            raise RuntimeError(
                f"{self.client} asks for {len(x)} rows, {self.budget - self.queries} of {self.budget} are left: "
                "lower the attack's queries, or raise the oracle's budget"
            )
        self.queries += len(x)
        answer: Tensor = self.model(x)
        if self.labels_only:
            answer = F.one_hot(answer.argmax(1), answer.shape[1]).to(answer.dtype)
        for monitor in self.monitors:
            monitor(self.client, x, answer)
        return answer
