"""One rule for all watermarks and fingerprints: which suspects can be queried, and what counts as an answer."""

from torch import Tensor, nn

from aisec_lab.attacks.answers import Kind, declared_kind
from aisec_lab.attacks.oracle import OutOfQueriesError
from aisec_lab.models.asked import check_logits, refuse_script_error
from aisec_lab.models.contexts import trains


class Suspect(nn.Module):
    """A suspect, checked at each query: it must take the rows of the claim and answer with the claim's classes.

    Every mark refuses a suspect that does not, since a p-value of 1 would say that it was examined. Marks that use
    weights alone make no queries; they compare the shapes of layers.

    Args:
        model: a classifier, or an `Oracle`.
        classes: number of classes K of the claim.

    Raises:
        ValueError: on a call, rows that the model cannot take, an answer that is no logits (`check_logits`), or another
            number of classes.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        self.publishes: Kind | None = declared_kind(model)
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of the claim's rows x (N, *input)."""
        try:
            answer: Tensor = self.model(x)
        except OutOfQueriesError:
            raise
        except (
            RuntimeError,
            AssertionError,
        ) as error:  # of torch or its programs, for shapes that do not fit
            refuse_script_error(error)
            raise ValueError(
                f"the suspect cannot take the claim's rows, of shape {tuple(x.shape[1:])} each "
                f"({str(error).splitlines()[0]}): wrap it so that it does"
            ) from error
        check_logits(answer, (x,))
        if answer.shape[1] != self.classes:
            raise ValueError(
                f"the suspect answers with {answer.shape[1]} classes, the claim has {self.classes}: wrap it so that it "
                "answers with those, in their order"
            )
        return answer
