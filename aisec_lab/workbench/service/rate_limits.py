"""Moving-window rate limits that all workers share, counted by credential and over all of them."""

import asyncio
import enum
from dataclasses import dataclass, field

import valkey.asyncio
from valkey.exceptions import ValkeyError

from aisec_lab.workbench.service.settings import LimitSettings

ALL = "all"
MOST = 500  # requests in one call
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function is_full(key, limit, window)
  local oldest = redis.call('LINDEX', key, limit - 1)
  return oldest and tonumber(oldest) > now - window
end
local function count(key, limit, window)
  redis.call('LPUSH', key, string.format('%.0f', now))
  redis.call('LTRIM', key, 0, limit - 1)
  redis.call('PEXPIRE', key, string.format('%.0f', window / 1000))
end
local each, each_window, all, all_window = unpack(ARGV)
local answers = {}
for i = 2, #KEYS do
  if is_full(KEYS[i], each, each_window) then
    answers[i - 1] = 1
  elseif is_full(KEYS[1], all, all_window) then
    answers[i - 1] = 2
  else
    count(KEYS[i], each, each_window)
    count(KEYS[1], all, all_window)
    answers[i - 1] = 0
  end
end
return answers
"""


class Admission(enum.Enum):
    """What became of a request at the limits."""

    ADMITTED = "admitted"
    CLIENT_LIMIT = "over the limit of its key"
    TOTAL_LIMIT = "over the limit of all keys together"
    STORE_LOST = "not counted: the store of the limits does not answer"


ANSWERS = (Admission.ADMITTED, Admission.CLIENT_LIMIT, Admission.TOTAL_LIMIT)  # by the number that the script returns


@dataclass
class SharedRateLimiter:
    """Admits at most so many requests in any window, whichever worker they come to.

    The store keeps the times of the last N requests of a window of N, by its own clock, so that the clocks of workers
    do not matter. It asks and counts in one script, which it runs alone: between the two nobody else counts, and a
    request that one limit refuses uses up none of the other. (The library `limits` has the same window, one script for
    each limit: a request over the limit of all would use one of its own, and two round trips of its client cost more
    than the model.) Requests that come while a call is under way share the next one.

    Args:
        settings: both limits.
        url: of the store.
    """

    settings: LimitSettings
    url: str
    _waiting: "list[tuple[str, asyncio.Future[Admission]]]" = field(default_factory=list, init=False, repr=False)
    _task: "asyncio.Task[None] | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        url = self.url.replace("redis", "valkey", 1) if self.url.startswith("redis") else self.url  # one client, both
        patience = self.settings.patience
        client = valkey.asyncio.Valkey.from_url(url, socket_timeout=patience, socket_connect_timeout=patience)
        self._script = client.register_script(SCRIPT)
        each, everybody = self.settings.per_credential, self.settings.all_credentials
        self._limits = [each.requests, each.seconds * 1_000_000, everybody.requests, everybody.seconds * 1_000_000]

    async def admit(self, credential: str) -> Admission:
        """Count a request.

        Args:
            credential: id of the key, never an address or header, which a client could choose.

        Returns:
            What became of it; whether STORE_LOST is admitted is the caller's setting.
        """
        future: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._waiting.append((f"key:{credential}", future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                async with asyncio.timeout(self.settings.patience):
                    numbers = await self._script(keys=[ALL, *(key for key, _ in batch)], args=self._limits)
                admissions = [ANSWERS[number] for number in numbers]
            except (ValkeyError, OSError, TimeoutError):
                admissions = [Admission.STORE_LOST] * len(batch)
            for (_, future), admission in zip(batch, admissions, strict=True):
                if not future.done():  # else the client has gone
                    future.set_result(admission)
