"""The application of one worker: its routes."""

import asyncio
import html
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from aisec_lab.workbench.service.batching import BusyError
from aisec_lab.workbench.service.bodies import read_body
from aisec_lab.workbench.service.door import RequestRefusedError
from aisec_lab.workbench.service.people import people_routes
from aisec_lab.workbench.service.scoring import NoModelError
from aisec_lab.workbench.service.worker import Worker

SERVICE = "service"  # object of the policy
KEY = {"key": {"type": "http", "scheme": "bearer", "description": "Of `aisec service key`."}}
OPEN = ("/health",)  # without a key


def build_app(worker: Worker) -> FastAPI:
    """The routes over what a worker has.

    Args:
        worker: of this process.

    Returns:
        The application.
    """
    app = FastAPI(
        title="aisec", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lambda _: worker.running()
    )
    limits, door, model = worker.settings.requests, worker.door, worker.name

    @app.exception_handler(RequestRefusedError)
    async def refuse(request: Request, refusal: RequestRefusedError) -> Response:
        """One line."""
        if request.url.path == "/score":
            worker.metrics.answers.labels(str(refusal.status)).inc()
        return JSONResponse({"error": refusal.why}, refusal.status, refusal.headers)

    @app.post("/score", openapi_extra={"requestBody": worker.decoder.request_body})
    async def score(request: Request) -> Response:
        """Score rows. A row that the guard rejects is not scored but quarantined: its answer is an id."""
        began = time.perf_counter()
        credential = await door.enter(request, "query", model)
        body = await read_body(request, limits)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            x = worker.decoder(body, kind)
        except LookupError as error:
            raise RequestRefusedError(415, str(error.args[0])) from None
        except ValueError as error:
            raise RequestRefusedError(422, str(error)) from None
        try:
            async with asyncio.timeout(limits.seconds):
                answers = await worker.batcher(x, credential.name)
        except BusyError:
            raise RequestRefusedError(503, "too many rows wait", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise RequestRefusedError(503, f"no answer within {limits.seconds} seconds", {"Retry-After": "1"}) from None
        except NoModelError:
            raise RequestRefusedError(503, "no model is vouched for") from None
        worker.metrics.answers.labels("200").inc()
        worker.metrics.seconds.observe(time.perf_counter() - began)
        return Response(to_json({"answers": answers}), media_type="application/json")

    @app.get("/health")
    async def health() -> Response:
        """Whether this worker can answer; anybody may ask, and learns nothing else."""
        ready = worker.scorer.served is not None
        return JSONResponse({"status": "ready" if ready else "no model"}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Counters of all workers, for Prometheus."""
        await door.enter(request, "read", SERVICE)
        held = await asyncio.to_thread(worker.quarantine.held)
        return Response(worker.metrics.page(quarantined_rows=held), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def describe(request: Request) -> Response:
        """The model: its digest, the ledger's entry that vouches for it, its card, shape and classes."""
        await door.enter(request, "query", model)
        served = worker.scorer.served
        if served is None:
            raise RequestRefusedError(503, "no model is vouched for")
        facts = {"name": served.name, "sha256": served.digest, "entry": served.entry.index, "card": served.card}
        return JSONResponse(facts | {"shape": served.shape, "classes": served.classes})

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """What can be asked, for readers; the usual page would load scripts from elsewhere."""
        return HTMLResponse(_page(app.openapi(), model))

    app.include_router(people_routes(worker))
    document = app.openapi()  # made once and kept
    document["components"]["securitySchemes"] = KEY
    for path, verbs in document["paths"].items():
        for about in verbs.values():
            about["security"] = [] if path in OPEN else [{"key": []}]
    return app


def _page(document: dict[str, Any], model: str) -> str:
    rows = "".join(
        f"<tr><td><code>{verb.upper()} {path}</code><td>{html.escape(about['description'])}"
        for path, verbs in document["paths"].items()
        for verb, about in verbs.items()
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>aisec</title><h1>{html.escape(model)}</h1><table>{rows}</table>"
        '<p>In full: <a href="/openapi.json">openapi.json</a>'
    )
