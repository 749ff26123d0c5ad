"""The vault beside OpenSSL, its memory, and a thousand tampered files: `python -m benchmarks.vault` writes vault.json.

OpenSSL's command line encrypts no file by AES-GCM, so `openssl enc` is asked for AES-256-CTR: GCM's cipher without its
authentication, which is less work than the vault does. `openssl speed` measures AES-256-GCM itself, in memory.
"""

import json
import platform
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric import rsa

from aisec_lab.core.binomial import upper_bound
from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_format import CHUNK
from aisec_lab.trust.vault_passphrase import Passphrase
from aisec_lab.trust.vault_rsa import PrivateKey, PublicKey
from aisec_lab.trust.vault_stream import CipherStream
from benchmarks.vault_tampering import TAMPERS, tampered

OUT = Path(__file__).with_suffix(".json")
MIB = 2**20
SIZE, REPEATS, SPEED_REPEATS = 256, 9, 5  # MiB, pairs
MEMORY_SIZES = (64, 512)  # MiB
COPIES, SMALL = 1000, 64  # files of each kind, and their bytes in a chunk
CHILD = """
import sys
from aisec_lab.trust.vault import open_sealed, seal
from aisec_lab.trust.vault_passphrase import Passphrase
work = {"nothing": lambda *_: None, "seal": seal, "open": open_sealed}
work[sys.argv[1]](*sys.argv[2:], Passphrase("correct horse", n=2**4))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Clock:
    """Seconds of the wall, and of the processor in this process and in those that it waited for."""

    def __enter__(self) -> "Clock":
        self.start = time.perf_counter(), self.processor()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.start[0], self.processor() - self.start[1]

    @staticmethod
    def processor() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Endless:
    """So many bytes to read, and none of them fetched from anywhere."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readinto(self, buffer: memoryview) -> int:
        length = min(len(buffer), self.left)
        self.left -= length
        return length


class Nowhere:
    """Takes what is written."""

    def write(self, data: memoryview) -> int:
        return len(data)


def ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Our time over theirs, inside each pair: median, least, most."""
    pairs = [one / two for one, two in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.median(pairs), "ratio_low": min(pairs), "ratio_high": max(pairs)}


def beside_enc(folder: Path) -> dict[str, Any]:
    """Seal and open a file, and `openssl enc` over the same, each first every other time."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        for _ in range(SIZE):
            file.write(secrets.token_bytes(MIB))
    pair = rsa.generate_private_key(65537, 3072)
    key, sealed = PublicKey(pair.public_key()), folder / "sealed"
    seal(source, sealed, key)
    enc = ["openssl", "enc", "-aes-256-ctr", "-K", secrets.token_hex(32), "-iv", secrets.token_hex(16)]
    runs: dict[str, Callable[[], object]] = {
        "seal": lambda: seal(source, target, key),
        "open": lambda: open_sealed(sealed, target, PrivateKey(pair)),
        "openssl enc": lambda: subprocess.run([*enc, "-in", source, "-out", target], check=True),
    }
    times: dict[str, list[Clock]] = {name: [] for name in runs}
    for repeat in range(REPEATS):
        for name in runs if repeat % 2 else reversed(runs):
            with Clock() as clock:
                runs[name]()
            times[name].append(clock)
            target.unlink()
    rows = {}
    for name in ("seal", "open"):
        cpu, wall = ([getattr(clock, kind) for clock in times[name]] for kind in ("cpu", "wall"))
        their_cpu, their_wall = ([getattr(clock, kind) for clock in times["openssl enc"]] for kind in ("cpu", "wall"))
        rows[name] = {
            "cpu": ratios(cpu, their_cpu),
            "wall": ratios(wall, their_wall),
            "ours_mib_per_wall_second": SIZE / statistics.median(wall),
            "theirs_mib_per_wall_second": SIZE / statistics.median(their_wall),
        }
    return rows


def beside_speed() -> dict[str, float]:
    """STREAM alone, from memory to nowhere, beside `openssl speed` in blocks of a chunk; both by the wall."""
    stream = CipherStream(secrets.token_bytes(32), secrets.token_bytes(7), secrets.token_bytes(500), CHUNK)
    command = ["openssl", "speed", "-elapsed", "-mr", "-seconds", "1", "-bytes", str(CHUNK), "-evp", "aes-256-gcm"]
    ours, theirs = [], []
    for _ in range(SPEED_REPEATS):
        with Clock() as clock:
            stream.encrypt(Endless(4 * SIZE * MIB), Nowhere())  # type: ignore[arg-type]
        ours.append(clock.wall / (4 * SIZE * MIB))
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        theirs.append(1 / float(next(line for line in report.splitlines() if line.startswith("+F")).split(":")[-1]))
    return ratios(ours, theirs) | {
        "ours_mib_per_wall_second": 1 / statistics.median(ours) / MIB,
        "theirs_mib_per_wall_second": 1 / statistics.median(theirs) / MIB,
    }


def peak(*arguments: object) -> int:
    """MiB that a process of its own had in memory at most; not `ru_maxrss`, which begins with its parent's."""
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) // 1024


def memory(folder: Path) -> dict[str, Any]:
    """The peak of sealing and opening, at two sizes; a file, and the same as a folder of eight."""
    rows: dict[str, Any] = {"nothing_mib": peak("nothing")}
    for size in MEMORY_SIZES:
        (folder / "many").mkdir()
        for number in range(8):
            with (folder / "many" / str(number)).open("wb") as part:
                part.truncate(size * MIB // 8)
        with (folder / "one").open("wb") as file:
            file.truncate(size * MIB)
        for source in ("one", "many"):
            sealed, opened = folder / f"{source}.sealed", folder / f"{source}.opened"
            rows[f"{source}, {size} MiB"] = {
                "seal_mib": peak("seal", folder / source, sealed),
                "open_mib": peak("open", sealed, opened),
            }
            subprocess.run(["rm", "-r", folder / source, sealed, opened], check=True)
    return rows


def tampering(folder: Path) -> dict[str, Any]:
    """Files of three chunks and more, intact and tampered with, and a wrong key; what the vault says to each."""
    random, plain, copy, target = Random(0), *(folder / name for name in ("plain", "copy", "target"))
    words, rsa_keys = Passphrase("correct horse", n=2), [rsa.generate_private_key(65537, 3072) for _ in range(2)]
    keys = [  # that seals, that opens, that does not
        (words, words, Passphrase("wrong horse", n=2)),
        (PublicKey(rsa_keys[0].public_key()), *map(PrivateKey, rsa_keys)),
    ]

    def sealed(content: bytes, key: Any) -> bytes:
        plain.write_bytes(content)
        seal(plain, target, key, chunk=SMALL)
        data = target.read_bytes()
        target.unlink()
        return data

    def opened(data: bytes, key: Any) -> bytes | None:
        copy.write_bytes(data)
        try:
            open_sealed(copy, target, key)
        except ValueError:
            assert {path.name for path in folder.iterdir()} == {"copy", "plain"}, "something was left"
            return None
        content = target.read_bytes()
        target.unlink()
        return content

    kinds = {tamper.__name__: [0, 0] for tamper in TAMPERS} | {"wrong_key": [0, 0]}  # refused, of how many
    intact = 0
    for number in range(COPIES):
        seals, opens, fails = keys[number % 2]
        content = random.randbytes(random.randrange(2 * SMALL + 1, 6 * SMALL))
        own, other = sealed(content, seals), sealed(random.randbytes(len(content)), seals)
        intact += opened(own, opens) == content
        count = list(kinds.values())[number % len(kinds)]
        if number % len(kinds) < len(TAMPERS):
            own = tampered(TAMPERS[number % len(kinds)], own, other, random)
            fails = opens
        count[0] += opened(own, fails) is None
        count[1] += 1
    missed = COPIES - sum(refused for refused, _ in kinds.values())
    return {
        "intact": COPIES,
        "intact_opened_to_equal_bytes": intact,
        "tampered": COPIES,
        "tampered_refused_with_nothing_left": COPIES - missed,
        "missed_rate_upper_95": float(upper_bound(missed, COPIES, 0.05)),
        "kinds": {name: {"refused": refused, "of": of} for name, (refused, of) in kinds.items()},
    }


def main() -> None:
    in_memory = Path("/dev/shm").is_dir()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if in_memory else None) as place:
        rows: dict[str, Any] = {"tampering": tampering(Path(place))}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if in_memory else None) as place:
        rows["beside_openssl_enc_ctr"] = beside_enc(Path(place))
        rows["beside_openssl_speed_gcm"] = beside_speed()
    with tempfile.TemporaryDirectory() as place:
        rows["memory"] = memory(Path(place))
    with Clock() as clock:
        Passphrase("correct horse").wrap(bytes(32))
    setting = {
        "file_mib": SIZE,
        "chunk_bytes": CHUNK,
        "files_on": "a file system in memory" if in_memory else "disk",
        "ratio": "our time over OpenSSL's, in pairs: median, least, most; below 1 ours is faster",
        "scrypt_wall_seconds": clock.wall,
        "versions": {
            "python": platform.python_version(),
            "cryptography": version("cryptography"),
            "its OpenSSL": backend.openssl_version_text(),
            "openssl": subprocess.run(
                ["openssl", "version"], capture_output=True, text=True, check=True
            ).stdout.strip(),
        },
    }
    OUT.write_text(json.dumps(setting | rows, indent=2) + "\n")
    print(OUT.read_text())


if __name__ == "__main__":
    main()
