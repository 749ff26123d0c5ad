"""Blacklight: an attack that searches asks about inputs that are nearly the same; their fingerprints meet."""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from itertools import chain

import numpy as np
from torch import Tensor

from aisec_lab.defenses.monitors.watch import QueryMonitor

REMEMBERED = 200  # of the last queries with a hash: a hash of plain background is in all of them
BYTES = 8  # of a hash


class Blacklight(QueryMonitor):
    """Blacklight (Li et al., 2022, arXiv:2006.14042, section 4).

    An input is rounded to steps, flattened, and cut into all windows of so many numbers in a row; each is hashed, and
    the largest hashes are the fingerprint. The score of a query is the share of its fingerprint that it has in common
    with one former query, the one for which that is most.

    The paper salts SHA-256; here the hash is BLAKE2b with a key: without it, nobody knows which windows count.
    A query costs a hash of each of its windows and at most `hashes` times 200 look-ups, however many came before: a
    hash remembers the last 200 queries that had it.

    Args:
        key: secret, 1 to 64 bytes.
        threshold: share of the fingerprint, in [0, 1), above which it rings; the paper's is 25 of 50.
        step: of the rounding, in units of the [0, 1] input.
        window: numbers in a row.
        hashes: how many make a fingerprint; fewer where there are fewer windows, or equal ones.
        shared: compare with the queries of all clients, as the paper does, against an attacker with many accounts;
            honest clients must then not ask about the same inputs. Else with the client's own.
        withhold: as for `QueryMonitor`.

    Raises:
        ValueError: a key that is no bytes, or no or too many of them, or a setting outside its range; on a call, an
            input of fewer numbers than a window has.
    """

    def __init__(
        self,
        key: bytes,
        threshold: float = 0.5,
        *,
        step: float = 50 / 255,
        window: int = 20,
        hashes: int = 50,
        shared: bool = False,
        withhold: bool = False,
    ) -> None:
        if not isinstance(key, bytes) or not 1 <= len(key) <= 64:
            given = len(key) if isinstance(key, bytes) else f"a {type(key).__name__}"
            raise ValueError(f"the key must have 1 to 64 bytes, got {given}: take secrets.token_bytes(32)")
        if not 0 <= threshold < 1 or not 0 < step <= 1 or window < 1 or hashes < 1:
            raise ValueError(
                "threshold must lie in [0, 1), step in (0, 1], and window and hashes be positive, got "
                f"{threshold}, {step}, {window}, {hashes}"
            )
        super().__init__(threshold, withhold)
        self.step, self.window, self.hashes, self.shared = step, window, hashes, shared
        self._keyed = hashlib.blake2b(key=key, digest_size=BYTES)
        self._number = 0
        self._queries: dict[tuple[str, bytes], deque[int]] = {}

    def fingerprint(self, row: np.ndarray) -> set[bytes]:
        """The largest hashes of the windows of an input's steps (D,), int32."""
        numbers, size, found = row.tobytes(), row.itemsize, set()
        for start in range(len(row) - self.window + 1):
            hashed = self._keyed.copy()
            hashed.update(numbers[start * size : (start + self.window) * size])
            found.add(hashed.digest())
        return set(sorted(found)[-self.hashes :])

    def scores(self, client: str, x: Tensor, answers: Tensor) -> Sequence[float]:
        """The largest share of each fingerprint in common with that of one former query."""
        steps = (x.flatten(1) / self.step).round().int().numpy()
        if steps.shape[1] < self.window:
            raise ValueError(
                f"a window of {self.window} does not fit into inputs of {steps.shape[1]} numbers: lower window"
            )
        whose = "" if self.shared else client
        found = []
        for row in steps:
            fingerprint = self.fingerprint(row)
            queries = [self._queries.setdefault((whose, each), deque(maxlen=REMEMBERED)) for each in fingerprint]
            met = Counter(chain.from_iterable(queries))  # in how many hashes each former query agrees
            for each in queries:
                each.append(self._number)
            self._number += 1
            found.append(max(met.values(), default=0) / len(fingerprint))
        return found
