"""Blacklight: query-based attacks send nearly equal inputs, whose hashed fingerprints overlap."""

import hashlib
from collections import Counter, deque
from itertools import chain

import numpy as np
from torch import Tensor

from aisec_lab.defenses.monitors.similarity import NONE, SimilarityMonitor

REMEMBERED = 200  # queries kept for each hash; a hash of plain background occurs in all of them
BYTES = 8  # length of a hash


class Blacklight(SimilarityMonitor):
    """Detect queries that are similar to an earlier query (Li et al., 2022, arXiv:2006.14042, section 4).

    An input is quantised and flattened, and every window of consecutive numbers is hashed. The largest hashes are its
    fingerprint. The score of a query is the largest share of its fingerprint that one earlier query also has.

    The paper uses salted SHA-256; here the hash is keyed BLAKE2b, so that only the owner of the key knows which windows
    count. Each hash keeps the last 200 queries that had it. So a query costs one hash for each window and at most
    200 * `hashes` look-ups, no matter how many queries came before.

    Call contract: `QueryMonitor`.

    Args:
        key: secret, 1 to 64 bytes.
        threshold: share of the fingerprint, in [0, 1), above which an alarm is raised; the paper's is 25 of 50.
        step: quantisation step, in (0, 1], in units of the input in [0, 1].
        window: consecutive numbers in a window, at least 1.
        hashes: size of a fingerprint, at least 1. It is smaller if there are fewer distinct windows.
        shared: compare with the queries of all clients, as in the paper, which catches an attacker with many accounts.
            Honest clients must then not send the same inputs. False compares with the client's own queries only.
        withhold: refuse all answers to a client from its first alarm on.

    Raises:
        ValueError: a key or a setting out of range; on a call, an input with fewer numbers than a window.
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
        super().__init__(threshold, shared, withhold)
        self.step, self.window, self.hashes = step, window, hashes
        self._keyed = hashlib.blake2b(key=key, digest_size=BYTES)
        self._queries: dict[tuple[str, bytes], deque[int]] = {}

    def fingerprint(self, row: np.ndarray) -> set[bytes]:
        """The largest hashes of the windows of a quantised input (D,), int32."""
        numbers, size, found = row.tobytes(), row.itemsize, set()
        for start in range(len(row) - self.window + 1):
            hashed = self._keyed.copy()
            hashed.update(numbers[start * size : (start + self.window) * size])
            found.add(hashed.digest())
        return set(sorted(found)[-self.hashes :])

    def nearest(self, client: str, x: Tensor) -> list[tuple[float, int]]:
        """For each query, the largest share of its fingerprint that one earlier query also has, and that query."""
        steps = (x.flatten(1) / self.step).round().int().numpy()
        if steps.shape[1] < self.window:
            raise ValueError(
                f"a window of {self.window} does not fit into inputs of {steps.shape[1]} numbers: lower window"
            )
        group, found = self.group(client), []
        for row in steps:
            fingerprint = self.fingerprint(row)
            queries = [self._queries.setdefault((group, each), deque(maxlen=REMEMBERED)) for each in fingerprint]
            met = Counter(chain.from_iterable(queries))  # how many hashes each earlier query shares
            number = self.next_number()
            for each in queries:
                each.append(number)
            shared, query = max(((count, query) for query, count in met.items()), default=NONE)
            found.append((shared / len(fingerprint), query))
        return found
