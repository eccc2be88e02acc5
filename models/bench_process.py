"""One child process for each thing that is measured: wall seconds, peak memory, and a guard that ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
_POLL_SECONDS = 0.02
_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a child.

    Attributes:
        seconds: from its start to its end, the interpreter's own start included.
        peak_bytes: largest resident set: the child's own high-water mark, or what polling saw if it did not live to
            tell; 0 if neither is known.
        error: one line; "" if it did its work.
        values: what it wrote.
    """

    seconds: float
    peak_bytes: int
    error: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def run(
    worker: Path,
    arguments: Sequence[str],
    *,
    timeout: float,
    memory_limit: int,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a worker script and wait for it.

    The script is called with `--result FILE` after the arguments and writes JSON there: `peak_bytes`, `error` (one line
    or "") and whatever else it found.

    Args:
        worker: the script; runs under this interpreter.
        arguments: of the command line; files by absolute paths, since the child stands in a folder of its own.
        timeout: seconds after which it is ended.
        memory_limit: bytes of resident memory above which it is ended.
        environment: variables on top of this process's.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-bench-") as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        command = [sys.executable, str(worker.resolve()), *arguments, "--result", str(result)]
        with log.open("wb") as stream:
            start = time.perf_counter()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=folder,  # the peer leaves files where it stands
                env={**os.environ, **(environment or {}), "TMPDIR": folder},
            )
            seen, ended = _watch(child, start, timeout, memory_limit)
            seconds = time.perf_counter() - start
        values: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
        tail = log.read_text(errors="replace").strip().splitlines()
    error = ended or str(values.get("error", ""))
    if not error and (child.returncode or not values):
        error = f"{_death(child.returncode)}{': ' + tail[-1] if tail else ''}"
    return Outcome(
        seconds=seconds,
        peak_bytes=int(values.get("peak_bytes") or seen),
        error=one_line(error),
        values={k: v for k, v in values.items() if k not in ("peak_bytes", "error")},
    )


def _watch(child: subprocess.Popen[bytes], start: float, timeout: float, memory_limit: int) -> tuple[int, str]:
    """(largest resident set that polling saw, why the child was ended or "")."""
    seen = 0
    try:
        process = psutil.Process(child.pid)
        while True:
            try:
                child.wait(_POLL_SECONDS)
                return seen, ""
            except subprocess.TimeoutExpired:
                pass
            try:
                seen = max(seen, process.memory_info().rss)
            except psutil.Error:  # it ended just now: the next wait returns
                continue
            if seen > memory_limit:
                return seen, f"ended by the bench: more than {memory_limit / 1e9:g} GB of memory"
            if time.perf_counter() - start > timeout:
                return seen, f"ended by the bench: not done after {timeout:g} s"
    except psutil.NoSuchProcess:
        return seen, ""
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code} and no result"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def one_line(error: str) -> str:
    """An error message fit for a table: one line, files without their folders, at most 300 characters.

    >>> one_line("Fail: [ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /a/b.onnx failed:no\\n good")
    'Fail: INVALID_GRAPH : no good'
    """
    error = " ".join(error.split())
    error = re.sub(r"\[ONNXRuntimeError\] : \d+ : |Load model from \S+ failed: ?", "", error)
    error = re.sub(r"(?<![\w/])\.{0,2}/(?:[^\s:/]+/)+([^\s:/]+)", r"\1", error)
    return error if len(error) <= _LONGEST else error[: _LONGEST - 1].rstrip() + "…"


def describe(error: BaseException) -> str:
    """`Type: message`; where it was raised, if it has no message.

    >>> describe(ValueError("no"))
    'ValueError: no'
    """
    if str(error):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def own_peak() -> int:
    """Bytes: the largest resident set of this process so far.

    Linux' VmHWM starts anew when a program is started; ru_maxrss keeps what the process that forked had.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
