"""What one worker process holds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aisec_lab.trust import Ledger, LedgerChange, PublicKey, read_signing_key
from aisec_lab.trust.access import Access
from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY
from aisec_lab.workbench.service.batching import Batcher
from aisec_lab.workbench.service.credentials import CREDENTIALS, CredentialFile, Keyring
from aisec_lab.workbench.service.database import DATABASE, Database
from aisec_lab.workbench.service.decoding import Decoder
from aisec_lab.workbench.service.door import Door
from aisec_lab.workbench.service.journal import Every, Journal
from aisec_lab.workbench.service.metrics import ServiceMetrics
from aisec_lab.workbench.service.quarantine import Quarantine
from aisec_lab.workbench.service.rate_limits import SharedRateLimiter
from aisec_lab.workbench.service.rolling_back import ModelRollback, note_loaded
from aisec_lab.workbench.service.scoring import NoModelError, Scorer
from aisec_lab.workbench.service.settings import ServiceSettings
from aisec_lab.workbench.service.totp import SecondFactor

LOG = logging.getLogger("uvicorn.error")
TICK = 0.25  # seconds between two looks for another version, of a worker that nobody asks


class Worker:
    """The parts of a worker, put together.

    Args:
        name: of the model's folder, from the project's root.
        settings: of the service.
        root: of the project.
        store: URL of the store of the limits.

    Raises:
        ValueError: a key that cannot be read.
        NoModelError: nothing vouches for the model.
    """

    def __init__(self, name: str, settings: ServiceSettings, root: Path, store: str) -> None:
        state = root / settings.state
        self.name, self.settings, self.root = name, settings, root
        self.database = Database(state / DATABASE)
        self.metrics = ServiceMetrics()
        self.journal = Journal(self.database)
        key = PublicKey.read(root / settings.quarantine.public_key)
        self.quarantine = Quarantine(self.database, key, settings.quarantine.bytes)
        self.scorer = Scorer(name, root, settings, self.quarantine, self.journal, self.metrics)
        self.scorer.refresh()
        assert self.scorer.served is not None
        self.decoder = Decoder(self.scorer.served.shape, settings.requests.rows)
        self.batcher = Batcher(self.scorer, settings.requests.rows, settings.requests.waiting)
        self.rollback = ModelRollback(name, root, self.scorer.load_again, self.database, settings.ledger_key)
        self.door = Door(
            Keyring(CredentialFile(state / CREDENTIALS)),
            Access(root / "configs" / "access"),
            SharedRateLimiter(settings.limits, store),
            settings.limits.when_lost == "admit",
            SecondFactor(self.database),
            self.journal,
            self.metrics,
        )
        self._ledger, self._key = Ledger(root / FOLDER), read_signing_key(root / SIGNING_KEY)

    def record(self, change: LedgerChange) -> None:
        """Append to the ledger, and wait for the disk."""
        self._ledger.append(change, self._key)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the worker runs, it moves its counts to the shared file and looks for another version of the model."""
        flushing = Every(self.journal.interval, self.journal.flush, lambda error: LOG.error("journal: %s", error))
        flushing.start()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            flushing.stop()
            self.batcher.close()

    async def _watch(self) -> None:
        noted: str | None = ""
        while True:
            try:
                await self.batcher.between_passes(self.scorer.refresh)
            except NoModelError as error:
                LOG.error("no model: %s", error)
            served = self.scorer.served
            if (digest := served.digest if served else None) != noted:
                await asyncio.to_thread(note_loaded, self.database, digest)
                noted = digest
            await asyncio.sleep(TICK)
