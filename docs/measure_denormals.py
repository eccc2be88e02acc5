"""What denormal numbers cost a float model: `python docs/measure_denormals.py MODEL SAMPLES` prints two times.

A processor may take a hundred times as long for numbers below 1.2e-38 as for others (see `onnxq.validate.denormals`):
one thread, each in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from onnxq.data.open import open_dataset
from onnxq.runtime.session import Session
from onnxq.validate.denormals import seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="What denormal numbers cost.")
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", help="a folder, a .npz file or module.py:function")
    told = parser.parse_args()
    specs = Session(told.model, threads=1).inputs
    inputs = next(itertools.islice(iter(open_dataset(told.samples, specs)), 1)).inputs
    for zero, said in ((False, "as they are"), (True, "set to zero")):
        print(f"denormals {said}: {1e3 * seconds(told.model, inputs, threads=1, zero=zero):.1f} ms")


if __name__ == "__main__":
    main()
