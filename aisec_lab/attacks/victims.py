"""Adapters for victims that are no torch modules: a function, a scikit-learn estimator, an HTTP endpoint."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aisec_lab.attacks.answers import KINDS, Kind, check_not_probabilities, read_answers

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may be gone at another attempt


class FunctionClassifier(nn.Module):
    """A plain function as a classifier of the lab, without gradients or access to its inside.

    Args:
        function: from queries (n, *input), an array of float32 in [0, 1], to n rows of K numbers, as an array, a tensor
            or lists; or to n numbers, which are labels or probabilities of class 1.
        publishes: what these are: "logits", "probabilities" or "labels".
        classes: K, at least 2; needed for labels (n,), else taken from the first answer.
        rows: queries of one call of the function at most, at least 1; None for no limit.

    Raises:
        ValueError: settings out of range, or what cannot be called or is a torch module already.
    """

    opaque: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[[NDArray[np.float32]], object],
        *,
        publishes: Kind,
        classes: int | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        if publishes not in KINDS:
            raise ValueError(f"a victim publishes {', '.join(KINDS)}, got {publishes!r}: correct `publishes`")
        if (rows is not None and rows < 1) or (classes is not None and classes < 2):
            raise ValueError(f"rows must be at least 1 and classes at least 2, or None, got {rows} and {classes}")
        if isinstance(function, nn.Module):
            raise ValueError("the victim is a torch module already: give it to an Oracle, which takes `publishes` too")
        if not callable(function):
            raise ValueError(f"a victim is called with an array of queries, got a {type(function).__name__}")
        self.function = function
        self.publishes, self.classes, self.rows = publishes, classes, rows
        self.training = False
        self._plain = publishes != "logits"  # as in an `Oracle`

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Classify queries.

        Args:
            x: queries (N, *input), float32 in [0, 1], on any device.

        Returns:
            Scores (N, K), float32, on the device of `x`: logits, logarithms of probabilities, or one-hot labels. An
            `Oracle` around the adapter knows which.

        Raises:
            ValueError: what `read_answers` refuses, and rows that sum to one where logits were declared.
            Exception: what the function raises.
        """
        if not len(x):
            return torch.empty(0, self.classes or 2, device=x.device)
        told = []
        for part in x.split(self.rows or len(x)):
            answers = read_answers(self.function(part.float().cpu().numpy()), part, self.publishes, self.classes)
            if not self._plain:
                check_not_probabilities(answers)
            self._plain, self.classes = True, answers.shape[1]
            told.append(answers.to(x.device, torch.float32))
        return torch.cat(told)


class SklearnClassifier(FunctionClassifier):
    """A fitted scikit-learn classifier, or a pipeline that ends in one; inputs are flattened to (N, D).

    Class k of the lab is `estimator.classes_[k]`: number the classes 0..K-1 before fitting, or translate. Called as
    `FunctionClassifier`.

    Args:
        estimator: it publishes its probabilities; without `predict_proba` the values of its decision function, as
            logits; without that, labels.
        labels_only: publish labels in any case.
        rows: queries of one call of the estimator at most, at least 1; None for no limit.

    Raises:
        ValueError: an estimator that was not fitted, or is no classifier of at least two classes.
    """

    def __init__(self, estimator: Any, *, labels_only: bool = False, rows: int | None = None) -> None:
        names = getattr(estimator, "classes_", None)
        if not isinstance(names, np.ndarray) or len(names) < 2:
            raise ValueError(
                f"{type(estimator).__name__} is no classifier that was fitted to two classes or more: call fit first"
            )
        publishes: Kind = "labels"
        if not labels_only and hasattr(estimator, "predict_proba"):
            publishes = "probabilities"
        elif not labels_only and hasattr(estimator, "decision_function"):
            publishes = "logits"

        def answers(x: NDArray[np.float32]) -> object:
            rows = x.reshape(len(x), -1)
            if publishes == "probabilities":
                return estimator.predict_proba(rows)
            if publishes == "labels":
                return np.searchsorted(names, estimator.predict(rows))
            scores = estimator.decision_function(rows)
            return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], 1)  # as TwoLogits

        super().__init__(answers, publishes=publishes, classes=len(names), rows=rows)
        self.estimator = estimator


class HTTPClassifier(FunctionClassifier):
    """An HTTP endpoint as a classifier: queries are posted as JSON, as to KServe (protocol V1) or TensorFlow Serving.

    Called as `FunctionClassifier`.

    Args:
        url: of the endpoint, http or https.
        publishes: what it answers with: "logits", "probabilities" or "labels".
        classes: K, at least 2; needed for labels (n,), else taken from the first answer.
        rows: queries of one request at most, at least 1; None for no limit.
        timeout: seconds that a request may take, positive.
        headers: sent with each request, such as a key.
        encode: from queries (n, *input) to a request's JSON; `{"instances": [...]}` by default.
        decode: from a response's JSON to answers, as those of a function; its "predictions" by default.

    Raises:
        ValueError: settings out of range, or another scheme; on a call also a response that is no JSON or has no
            predictions.
        ConnectionError, TimeoutError: on a call: no connection, no answer in time, or a busy server; another attempt
            may succeed, as `Oracle(..., attempts=5)` makes it.
        PermissionError: on a call that the server forbids.
        RuntimeError: on a call that is answered with any other status.
    """

    def __init__(
        self,
        url: str,
        *,
        publishes: Kind,
        classes: int | None = None,
        rows: int | None = 100,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        encode: Callable[[NDArray[np.float32]], object] = lambda x: {"instances": x.tolist()},
        decode: Callable[[Any], object] = lambda answer: answer["predictions"],
    ) -> None:
        if not url.startswith(("http://", "https://")) or not timeout > 0:
            raise ValueError(f"url must be one of http or https and timeout positive, got {url!r} and {timeout}")
        sent = {"Content-Type": "application/json"} | dict(headers or {})

        def answers(x: NDArray[np.float32]) -> object:
            request = urllib.request.Request(url, json.dumps(encode(x)).encode(), sent, method="POST")
            content = _content(request, timeout)
            try:
                return decode(json.loads(content))
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(
                    f"the response of {url} is not what was expected ({type(error).__name__}), it begins "
                    f"{content[:60]!r}: give a `decode` that finds the answers in it"
                ) from error

        super().__init__(answers, publishes=publishes, classes=classes, rows=rows)


def _content(request: urllib.request.Request, timeout: float) -> bytes:
    """The content of a server's response; an error says by its type whether another attempt may succeed."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            content: bytes = response.read()
            return content
    except urllib.error.HTTPError as error:
        said = f"{request.full_url} responds {error.code} {error.reason}"
        if error.code in TRANSIENT:
            raise ConnectionError(f"{said}: try again later") from error
        if error.code in (401, 403):
            raise PermissionError(f"{said}: give `headers` with a key that is allowed to ask") from error
        raise RuntimeError(f"{said}: correct the url, or `encode`") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"{request.full_url} does not answer within {timeout:g} s") from error
        raise ConnectionError(f"{request.full_url} can't be reached: {error.reason}") from error
    except TimeoutError as error:
        raise TimeoutError(f"{request.full_url} does not answer within {timeout:g} s") from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"{request.full_url} broke off its response: {type(error).__name__}") from error
