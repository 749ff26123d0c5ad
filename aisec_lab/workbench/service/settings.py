"""The settings of the service, `configs/service.yaml`, checked before anything starts."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import yaml

EMBEDDED = "embedded"
WHEN_LOST = ("refuse", "admit")
PUBLISHED = ("probabilities", "label")
STORES = ("valkey", "valkeys", "redis", "rediss", "unix")


@dataclass(frozen=True)
class Strict:
    """Settings in which a misspelt name is an error."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class TLSSettings(Strict):
    """Certificates of the service and, with a CA, of its clients.

    Args:
        certificate, key: PEM files of the server.
        client_certificates: whether a client must show a certificate (mutual TLS).
        client_ca: PEM file of the authority that signs them; without one mutual TLS would check nothing.

    Raises:
        ValueError: client certificates without an authority.
    """

    certificate: Path = Path(".aisec/service/server.pem")
    key: Path = Path(".aisec/service/server.key")
    client_certificates: bool = False
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        if self.client_certificates and self.client_ca is None:
            raise ValueError("tls.client_certificates is on and tls.client_ca names no CA: no client could be checked")


@dataclass(frozen=True)
class RateLimit(Strict):
    """So many requests in any window of so many seconds.

    Args:
        requests: at least 1.
        seconds: at least 1.
    """

    requests: int
    seconds: int

    def __post_init__(self) -> None:
        if self.requests < 1 or self.seconds < 1:
            raise ValueError(f"a limit is at least 1 request in 1 second, got {self.requests} in {self.seconds}")


@dataclass(frozen=True)
class LimitSettings(Strict):
    """How often the service may be asked.

    Args:
        per_credential: limit of each API key.
        all_credentials: limit of all keys together, against one thief with many of them.
        store: `embedded`, or the URL of a Redis or Valkey server, which counts for all workers.
        when_lost: `refuse` or `admit` what cannot be counted because the store does not answer.
        patience: seconds to wait for the store.
    """

    per_credential: RateLimit = field(default_factory=lambda: RateLimit(6_000, 60))
    all_credentials: RateLimit = field(default_factory=lambda: RateLimit(60_000, 60))
    store: str = EMBEDDED
    when_lost: str = "refuse"
    patience: float = 0.5

    def __post_init__(self) -> None:
        if self.store != EMBEDDED and urlsplit(self.store).scheme not in STORES:
            raise ValueError(f"limits.store is {EMBEDDED} or a URL of {', '.join(STORES)}, got {self.store!r}")
        if self.when_lost not in WHEN_LOST:
            raise ValueError(f"limits.when_lost is one of {', '.join(WHEN_LOST)}, got {self.when_lost!r}")
        if not 0 < self.patience <= 10:
            raise ValueError(f"limits.patience is in (0, 10] seconds, got {self.patience}")


@dataclass(frozen=True)
class RequestSettings(Strict):
    """What one request may be.

    Args:
        bytes: of the body, at most.
        rows: at most.
        seconds: for the body to arrive, and again for the answer.
        waiting: rows that may wait in a worker; more are refused at once, with 503.
    """

    bytes: int = 2**20
    rows: int = 256
    seconds: float = 5.0
    waiting: int = 4096

    def __post_init__(self) -> None:
        if min(self.bytes, self.rows) < 1 or not 0 < self.seconds <= 300:
            raise ValueError(f"requests: bytes and rows are positive, seconds in (0, 300], got {self}")
        if self.waiting < self.rows:
            raise ValueError(f"requests.waiting is at least requests.rows ({self.rows}), got {self.waiting}")


@dataclass(frozen=True)
class QuarantineSettings(Strict):
    """Where suspicious requests are kept.

    Args:
        public_key: of the vault: it seals what they asked (`aisec vault keygen`).
        private_key: its other half, itself sealed by a passphrase, which the person types who releases a request.
        bytes: of all sealed requests together; what comes when it is full is refused and not kept.
    """

    public_key: Path = Path(".aisec/service/quarantine.pub")
    private_key: Path = Path(".aisec/service/quarantine.key")
    bytes: int = 2**30

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise ValueError(f"quarantine.bytes is positive, got {self.bytes}")


@dataclass(frozen=True)
class GuardSettings(Strict):
    """What stands before the model: a chain of filters, fitted to the model's own data when a worker starts.

    Args:
        fpr: false positive rate of each detector, in (0, 1); its threshold follows from clean rows.
        budget: seconds that the chain may take for a request, waiting included.
        detectors: by name, each as a Hydra `_target_`, the cheap ones first.
        required: names of the filters that run whatever the time.
        skip_rejects: reject what was not checked by all of them, instead of passing it.
        ranges: by detector, the lowest and highest threshold that a person may set while the service runs.
    """

    fpr: float = 0.01
    budget: float = 0.1
    detectors: dict[str, Any] = field(
        default_factory=lambda: {"mahalanobis": {"_target_": "aisec_lab.defenses.Mahalanobis"}}
    )
    required: list[str] = field(default_factory=lambda: ["schema"])
    skip_rejects: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if name not in self.detectors or not -math.inf < low < high < math.inf:
                raise ValueError(f"ranges: {name} is no detector, or its range is empty: [{low}, {high}]")
        if not 0 < self.fpr < 1:
            raise ValueError(f"fpr is in (0, 1), got {self.fpr}")
        if not self.budget > 0:
            raise ValueError(f"budget is a positive number of seconds, got {self.budget}")


@dataclass(frozen=True)
class ServiceSettings(Strict):
    """All settings of the service; paths are from the project's root.

    Args:
        host: address to listen on.
        port: 0 lets the system choose.
        workers: processes that answer.
        state: folder of keys, limits and quarantine, outside git, for the service's account alone.
        tls, limits, requests, quarantine: the parts.
        guard: what stands before the model; None for nothing, as a baseline.
        publishes: `probabilities`, or `label` for the predicted class alone.
        ledger_key: a copy of the ledger's public key that nobody who can write the project can change; None for the
            one beside the ledger.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    workers: int = 2
    state: Path = Path(".aisec/service")
    tls: TLSSettings = field(default_factory=TLSSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    requests: RequestSettings = field(default_factory=RequestSettings)
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings)
    guard: GuardSettings | None = field(default_factory=GuardSettings)
    publishes: str = "probabilities"
    ledger_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is in 0..65535, got {self.port}")
        if not 1 <= self.workers <= 64:
            raise ValueError(f"workers is in 1..64, got {self.workers}")
        if self.publishes not in PUBLISHED:
            raise ValueError(f"publishes is one of {', '.join(PUBLISHED)}, got {self.publishes!r}")


def read_settings(path: Path) -> ServiceSettings:
    """The settings in a YAML file; what it leaves out has its default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name, a value of another type, or one out of range.
    """
    if not path.exists():
        raise FileNotFoundError(f"no settings of the service at {path}")
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(ServiceSettings).validate_python(yaml.safe_load(path.read_bytes()))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
