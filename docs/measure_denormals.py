"""What denormal numbers cost a float model: `python docs/measure_denormals.py MODEL SAMPLES` prints two times.

A processor may take a hundred times as long for numbers below 1e-38 as for others. ONNX Runtime computes with them
unless `session.set_denormal_as_zero` is set, which acts on the first session of a process: each time is measured in
a process of its own, one thread.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from pathlib import Path

from onnxq.data.open import open_dataset
from onnxq.runtime.session import Session

RUNS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="What denormal numbers cost.")
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", help="a folder, a .npz file or module.py:function")
    parser.add_argument("--zero", choices=("0", "1"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.zero is not None:
        print(f"{1e3 * seconds(told.model, told.samples, told.zero):.1f}")
        return
    for zero, said in (("0", "as they are"), ("1", "set to zero")):
        command = [sys.executable, __file__, str(told.model), told.samples, "--zero", zero]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        print(f"denormals {said}: {found} ms")


def seconds(model: Path, samples: str, zero: str) -> float:
    """Median of a run."""
    session = Session(model, threads=1, config={"session.set_denormal_as_zero": zero})
    inputs = next(itertools.islice(iter(open_dataset(samples, session.inputs)), 1)).inputs
    session.run(inputs)
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    main()
