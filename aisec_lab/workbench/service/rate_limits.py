"""Moving-window rate limits that all workers share, counted by credential and over all of them."""

import asyncio
import enum
from dataclasses import dataclass, field

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from valkey.exceptions import ValkeyError

from aisec_lab.workbench.service.settings import LimitSettings, RateLimit


class Admission(enum.Enum):
    """What became of a request at the limits."""

    ADMITTED = "admitted"
    CLIENT_LIMIT = "over the limit of its key"
    TOTAL_LIMIT = "over the limit of all keys together"
    STORE_LOST = "not counted: the store of the limits does not answer"


@dataclass
class RateLimiter:
    """Admits exactly so many requests in any window, whichever worker they come to.

    `limits` asks and counts in one Lua script, which the server runs alone: between the two no other worker can count.
    A request over its own limit does not use up the limit of all; one over that of all has used one of its own.

    Args:
        settings: both limits.
        url: of the store.
    """

    settings: LimitSettings
    url: str
    _limiter: MovingWindowRateLimiter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        url = self.url.replace("redis", "valkey", 1)  # one client speaks to both
        patience = self.settings.patience
        storage = RedisStorage(f"async+{url}", socket_timeout=patience, socket_connect_timeout=patience)
        self._limiter = MovingWindowRateLimiter(storage)
        self._each = _item(self.settings.per_credential)
        self._all = _item(self.settings.all_credentials)

    async def admit(self, credential: str) -> Admission:
        """Count a request.

        Args:
            credential: id of the key, never an address or header, which a client could choose.

        Returns:
            What became of it; whether STORE_LOST is admitted is the caller's setting.
        """
        try:
            async with asyncio.timeout(self.settings.patience):
                if not await self._limiter.hit(self._each, "key", credential):
                    return Admission.CLIENT_LIMIT
                if not await self._limiter.hit(self._all, "all"):
                    return Admission.TOTAL_LIMIT
        except (ValkeyError, OSError, TimeoutError):
            return Admission.STORE_LOST
        return Admission.ADMITTED


def _item(limit: RateLimit) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(limit.requests, limit.seconds)
