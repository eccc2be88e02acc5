"""What denormal numbers cost a float model.

Numbers below 1.2e-38 take some processors a hundred times as long as others. ONNX Runtime computes with them unless
`session.set_denormal_as_zero` is set, which acts on the first session of a process: so it is tried in another one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.runtime.session import Session
from onnxq.validate.latency import Latency

SUSPECT = 3.0
"""Times as fast as float: more than integer kernels alone have made any of our models."""

WORTH = 1.2
"""Times as fast as it was a float model must be without them, to be told of."""

_RUNS, _PATIENCE_SECONDS = 10, 60.0


def denormals(reference: Path, latency: Sequence[Latency], inputs: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """A sentence where int8 is that much faster because the float model computes with denormal numbers.

    Args:
        reference: the float model.
        latency: what was measured.
        inputs: one set of inputs.
    """
    suspect = next((one for one in latency if one.speedup >= SUSPECT), None)
    if suspect is None:
        return ()
    try:
        without = 1e3 * seconds(reference, inputs, threads=suspect.threads, zero=True)
    except ModelError:
        return ()
    if suspect.reference_ms < WORTH * without:
        return ()
    return (
        "The float model is slow because its activations hold denormal numbers (below 1.2e-38), which this processor "
        f"computes slowly: with session.set_denormal_as_zero it takes {without:.1f} ms instead of "
        f"{suspect.reference_ms:.1f} ms; the new model is {without / suspect.candidate_ms:.2f} times as fast as that.",
    )


def seconds(model: Path, inputs: Mapping[str, NDArray[Any]], *, threads: int, zero: bool) -> float:
    """Median of a run, in a process of its own.

    Args:
        zero: denormal numbers count as 0.

    Raises:
        ModelError: the process fails, or takes longer than a minute.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "inputs.npz"
        np.savez(file, *inputs.values())
        command = [sys.executable, "-m", __name__, str(model), str(file), str(threads), str(int(zero)), *inputs]
        try:
            found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
            return float(found.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise ModelError(f"{model} cannot be timed in another process ({error}): run it there by hand") from error


def _main(model: str, file: str, threads: str, zero: str, *names: str) -> None:
    session = Session(Path(model), threads=int(threads), config={"session.set_denormal_as_zero": zero})
    with np.load(file) as arrays:
        inputs = {name: arrays[f"arr_{at}"] for at, name in enumerate(names)}
    session.run(inputs)
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - begin)
    print(statistics.median(times))


if __name__ == "__main__":
    _main(*sys.argv[1:])
