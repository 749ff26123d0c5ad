"""Who comes in: a key, a role, a limit, and for what cannot be undone a second factor."""

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request

from aisec_lab.trust.access import Access
from aisec_lab.workbench.service.credentials import Credential, Keyring
from aisec_lab.workbench.service.journal import Event, Journal
from aisec_lab.workbench.service.metrics import ServiceMetrics
from aisec_lab.workbench.service.rate_limits import Admission, SharedRateLimiter
from aisec_lab.workbench.service.totp import SecondFactor

NOBODY = "nobody"  # in the ledger: whoever shows no valid key
CODE = "x-totp"  # header with the code of a person's second factor


class RequestRefusedError(Exception):
    """An answer that is no result.

    Args:
        status: of HTTP.
        why: one line for the client.
        headers: of the answer.
    """

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers or {}


@dataclass
class Door:
    """Lets a request in, or counts and raises its refusal.

    Args:
        keyring: of the credentials.
        access: the policy.
        limiter: counts; it is asked last, so that a request that is refused anyway uses nothing up.
        admit_lost: whether to admit what the limiter cannot count.
        second_factor: of people.
        journal, metrics: count refusals.
    """

    keyring: Keyring
    access: Access
    limiter: SharedRateLimiter
    admit_lost: bool
    second_factor: SecondFactor
    journal: Journal
    metrics: ServiceMetrics
    _granted: dict[tuple[str, str, str], bool] = field(default_factory=dict, repr=False)

    async def enter(self, request: Request, action: str, obj: str) -> Credential:
        """Let a credential in whose role may do an action to an object, within its limit.

        Args:
            request: with the header `Authorization: Bearer KEY`. No other header and no address counts.
            action, obj: of the access policy.

        Returns:
            The credential.

        Raises:
            RequestRefusedError: 401 without a valid key, 403 if its role may not, 429 over a limit, 503 if none counts.
        """
        credential = self._known(request, obj)
        if not self._may(credential.role, action, obj):
            raise self.refused(credential.name, obj, 403, f"its role may not {action} {obj}")
        admission = await self.limiter.admit(credential.id)
        if admission is Admission.STORE_LOST:
            self.metrics.lost.inc()
            if self.admit_lost:
                self.journal.count(Event(credential.name, "admit", obj, admission.value))
                return credential
            raise self.refused(credential.name, obj, 503, admission.value, {"Retry-After": "1"})
        if admission is not Admission.ADMITTED:
            raise self.refused(credential.name, obj, 429, admission.value, {"Retry-After": "1"})
        return credential

    async def enter_person(self, request: Request, action: str, obj: str) -> Credential:
        """As `enter`, for what only a person does: the header `X-TOTP` holds a code that was not used before."""
        credential = await self.enter(request, action, obj)
        code = request.headers.get(CODE, "")
        if why := await asyncio.to_thread(self.second_factor.check, credential, code):
            raise self.refused(credential.name, obj, 403, why)
        return credential

    def refused(
        self, who: str, obj: str, status: int, why: str, headers: dict[str, str] | None = None
    ) -> RequestRefusedError:
        """Count a refusal for the ledger and for Prometheus.

        Args:
            who: name of the credential, or `NOBODY`.
            obj: of the policy.
            status, why, headers: of the answer; `why` is one of a fixed set, since it names a series and an entry.
        """
        self.journal.count(Event(who, "refuse", obj, why))
        self.metrics.refusals.labels(f"{status}").inc()
        return RequestRefusedError(status, why, headers)

    def _known(self, request: Request, obj: str) -> Credential:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            credential = self.keyring.find(token) if kind.lower() == "bearer" else None
        except ValueError:  # damaged, or readable by others: nobody comes in until somebody has looked at it
            raise self.refused(NOBODY, obj, 503, "the file of the keys cannot be trusted") from None
        if credential is None:
            raise self.refused(NOBODY, obj, 401, "no valid key", {"WWW-Authenticate": "Bearer"})
        return credential

    def _may(self, role: str, action: str, obj: str) -> bool:
        """The policy's answer, which does not change while this worker runs."""
        question = (role, action, obj)
        if question not in self._granted:
            self._granted[question] = role in self.access.roles and self.access.allowed(*question)
        return self._granted[question]
