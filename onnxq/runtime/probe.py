"""Memory and load time of one model, measured in a process of its own: `python -m onnxq.runtime.probe`.

Memory is what the process has above what it had before the session was made, ONNX Runtime and the sample loaded: the
high-water mark (VmHWM, which is reset first) and the anonymous part (RssAnon), as Linux counts them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError, UsageError

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One model.

    Attributes:
        load_ms: of each session that was made, milliseconds, the first in a fresh process.
        peak_bytes: high-water mark of the first session and one run, above the process before.
        anonymous_bytes: what the session keeps that is no file.
    """

    load_ms: tuple[float, ...]
    peak_bytes: int
    anonymous_bytes: int


def probe(model: Path, inputs: Mapping[str, NDArray[Any]], *, threads: int = 1, loads: int = 1) -> Probe:
    """Measure one model.

    Args:
        inputs: of one run.
        threads: intra-op threads.
        loads: sessions to make.

    Raises:
        UsageError: this system does not say how much memory a process has.
        ModelError: the process failed.
    """
    if not _STATUS.is_file():
        raise UsageError("memory and load time are read from /proc, which only Linux has: leave their limits out here")
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        sample = Path(folder) / "sample.npz"
        names = [f"input{i}" for i in range(len(inputs))]
        arrays: dict[str, Any] = dict(zip(names, inputs.values(), strict=True))
        np.savez(sample, **arrays)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "onnxq.runtime.probe", str(model.resolve()), str(sample)),
                json.dumps(dict(zip(names, inputs, strict=True))),
                *(str(threads), str(loads)),
            ],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise ModelError(f"memory of {model} cannot be measured, its process failed: {last}")
    found = json.loads(done.stdout)
    return Probe(
        load_ms=tuple(found["load_ms"]), peak_bytes=found["peak_bytes"], anonymous_bytes=found["anonymous_bytes"]
    )


def _status() -> dict[str, int]:
    """Bytes of the lines of the process's status that are sizes."""
    found = {}
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            found[key] = int(words[0]) * 1024
    return found


def _main(model: str, sample: str, names: str, threads: str, loads: str) -> None:
    from onnxq.runtime.session import Session

    told = json.loads(names)
    with np.load(sample, allow_pickle=True) as arrays:
        inputs = {told[key]: arrays[key] for key in arrays.files}
    with contextlib.suppress(OSError):  # where it is forbidden, the peak of loading ONNX Runtime itself is the least
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts here
    before = after = _status()
    times: list[float] = []
    session = None
    for turn in range(int(loads)):
        del session
        start = time.perf_counter()
        session = Session(Path(model), threads=int(threads))
        times.append((time.perf_counter() - start) * 1e3)
        if turn == 0:
            session.run(inputs)
            after = _status()
    peak = max(after["VmHWM"] - before["VmRSS"], 0)
    anonymous = max(after["RssAnon"] - before["RssAnon"], 0)
    sys.stdout.write(json.dumps({"load_ms": times, "peak_bytes": peak, "anonymous_bytes": anonymous}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
