"""One rule for all marks and fingerprints: whom they can ask, and what they take for an answer."""

from torch import Tensor, nn

from aisec_lab.attacks.answers import Kind, declared
from aisec_lab.attacks.oracle import OutOfQueriesError
from aisec_lab.models.asked import check_logits, refuse_script_error
from aisec_lab.models.contexts import trains


class Suspect(nn.Module):
    """A suspect as every mark asks it: it has to take the rows of the claim, and to answer with the claim's classes.

    One that does not is refused, whatever mark asks: a p-value of 1 would say that it was looked at. Marks that look at
    weights alone ask nothing; they compare layers by their shapes.

    Args:
        model: a classifier, or an `Oracle`.
        classes: K, how many the claim has.

    Raises:
        ValueError: on a call with rows that the model cannot take, an answer that is none (`check_logits`), or another
            number of classes.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        self.publishes: Kind | None = declared(model)
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K) of the claim's rows x (N, *input)."""
        try:
            answer: Tensor = self.model(x)
        except OutOfQueriesError:
            raise
        except (RuntimeError, AssertionError) as error:  # torch's words for shapes that do not fit, and its programs'
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
