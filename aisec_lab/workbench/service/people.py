"""The routes of people: the quarantine, and the way back to the last good version."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from torch import Tensor

from aisec_lab.trust import LedgerChange, Passphrase, PrivateKey
from aisec_lab.workbench.service.bodies import ReleaseBody, RollbackBody, ThresholdBody, read_json
from aisec_lab.workbench.service.door import CODE, RequestRefusedError
from aisec_lab.workbench.service.quarantine import QuarantineRecord
from aisec_lab.workbench.service.scoring import NoModelError
from aisec_lab.workbench.service.thresholds import find_threshold_error, set_threshold
from aisec_lab.workbench.service.worker import Worker

QUARANTINE, THRESHOLDS = "quarantine", "thresholds"  # objects of the policy
Identity = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Of a quarantined row.")]
CODE_HEADER = {
    "name": CODE,
    "in": "header",
    "required": True,
    "description": "A code of your second factor; each works once.",
    "schema": {"type": "string", "pattern": "^[0-9]{6}$"},
}


def people_routes(worker: Worker) -> APIRouter:
    """The routes over what a worker has.

    Args:
        worker: of this process.

    Returns:
        The router.
    """
    router, limits, door, model = APIRouter(), worker.settings.requests, worker.door, worker.name

    @router.get("/quarantine")
    async def quarantined(request: Request) -> Response:
        """The newest quarantined rows: who sent them, when, why they were held; what they are stays sealed."""
        await door.enter(request, "read", QUARANTINE)
        records = await asyncio.to_thread(worker.quarantine.records)
        return JSONResponse({"rows": [record.as_json() for record in records]})

    @router.get("/quarantine/{identity}")
    async def one(request: Request, identity: Identity) -> Response:
        """A quarantined row of the client that asks: its state, and its answer once it is released."""
        credential = await door.enter(request, "query", model)
        record = await _record(worker, identity)
        if record is None or record.client != credential.name:  # the same answer: an id is nobody else's business
            raise RequestRefusedError(404, "no such row of yours")
        answer = None if record.answer is None else json.loads(record.answer)
        return JSONResponse({"id": record.id, "state": record.state, "answer": answer})

    @router.post("/quarantine/{identity}/release", openapi_extra=_people(ReleaseBody))
    async def release(request: Request, identity: Identity) -> Response:
        """Open a row, give it to the model without the guard, and keep the answer for its client. A person's act."""
        person = await door.enter_person(request, "release", QUARANTINE)
        given = await read_json(request, limits, ReleaseBody)
        record = await _record(worker, identity)
        if record is None:
            raise RequestRefusedError(404, "no such row")
        if record.state != "held":
            raise RequestRefusedError(409, f"{record.released_by} released it already")
        try:
            x = await asyncio.to_thread(_opened, worker, identity, given.passphrase)
        except ValueError:
            raise door.refused(person.name, QUARANTINE, 403, "gave a passphrase that opens nothing") from None
        try:
            answer = await worker.batcher.between_passes(lambda: worker.scorer.release(x))
        except NoModelError:
            raise RequestRefusedError(503, "no model is vouched for") from None
        why = f"row {identity} of {record.client}, held because of {record.reason}"
        await asyncio.to_thread(worker.record, LedgerChange(person.name, "release", model, why))
        if not await asyncio.to_thread(worker.quarantine.release, identity, person.name, answer):
            raise RequestRefusedError(409, "somebody released it meanwhile")
        return JSONResponse({"id": identity, "state": "released", "answer": json.loads(answer)})

    @router.get("/thresholds")
    async def thresholds(request: Request) -> Response:
        """The thresholds in effect, and the ranges in which a person may set them."""
        await door.enter(request, "read", THRESHOLDS)
        guard = worker.settings.guard
        return JSONResponse({"thresholds": worker.scorer.thresholds, "ranges": guard.ranges if guard else {}})

    @router.post("/thresholds", openapi_extra=_people(ThresholdBody))
    async def change(request: Request) -> Response:
        """Set a threshold within its range, for every worker before its next pass. A person's act."""
        person = await door.enter_person(request, "write", THRESHOLDS)
        given = await read_json(request, limits, ThresholdBody)
        if error := find_threshold_error(worker.settings.guard, given.filter, given.threshold):
            raise RequestRefusedError(422, error)
        served = worker.scorer.served
        if served is None:
            raise RequestRefusedError(503, "no model is vouched for")
        if not given.why.isprintable():
            raise RequestRefusedError(422, "why: one printable line")
        before = worker.scorer.thresholds[given.filter]
        why = f"{given.filter} from {before:g} to {given.threshold:g}: {given.why}"
        await asyncio.to_thread(worker.record, LedgerChange(person.name, "threshold", model, why))
        await asyncio.to_thread(set_threshold, worker.database, served.digest, given.filter, given.threshold)
        await asyncio.to_thread(worker.scorer.load_again)
        return JSONResponse({"filter": given.filter, "before": before, "threshold": given.threshold})

    @router.post("/rollback", openapi_extra=_people(RollbackBody))
    async def roll_back(request: Request) -> Response:
        """Go back to the last good version of the model; answered when every worker has it. A person's act."""
        person = await door.enter_person(request, "rollback", model)
        given = await read_json(request, limits, RollbackBody)
        if not given.why.isprintable():
            raise RequestRefusedError(422, "why: one printable line")
        why = f"{given.why} ({person.name}, through the service)"
        try:
            goal = await asyncio.to_thread(worker.rollback, person.role, why)
        except (ValueError, OSError) as error:
            raise RequestRefusedError(409, " ".join(str(error).split())) from None
        return JSONResponse({"entry": goal.index, "sha256": goal.after})

    return router


async def _record(worker: Worker, identity: str) -> QuarantineRecord | None:
    try:
        return await asyncio.to_thread(worker.quarantine.record, identity)
    except LookupError:
        return None


def _opened(worker: Worker, identity: str, passphrase: str) -> Tensor:
    """The row; the key lives as long as this call."""
    key = PrivateKey.read(worker.root / worker.settings.quarantine.private_key, Passphrase(passphrase))
    return worker.quarantine.open(identity, key)


def _people(body: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: the body, which is read within limits and so not by FastAPI, and the header."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [CODE_HEADER]}
