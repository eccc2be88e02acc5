"""Measure what docs/ort.md says about ONNX Runtime.

    python docs/measure_ort.py                      # print every structural fact (seconds)
    python docs/measure_ort.py --only axis bias     # some of them
    python docs/measure_ort.py --write              # write their tables into docs/ort.md
    python docs/measure_ort.py --speed --write      # the timed ones (minutes; leave the machine alone meanwhile)

A fact is an entry of `FACTS` in one of the measure_*.py files beside this one: name, sentence, and a function that
builds tiny models, runs them and returns the rows. A new one also needs its two markers in docs/ort.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import measure_bodies
import measure_exact
import measure_gemm
import measure_kernels
import measure_numbers
import measure_speed
import numpy as np
import onnx
from measure_table import Fact, Rows, markdown, replace

from onnxq.runtime.session import VERSION
from onnxq.targets.hardware import detect

PAGE = Path(__file__).resolve().parent / "ort.md"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [li.split(":", 1)[1].strip() for li in info.read_text().splitlines() if li.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def _setup() -> Rows:
    return [
        ["onnxruntime", "onnx", "numpy", "Python", "CPU", "integer products"],
        [VERSION, onnx.__version__, np.__version__, platform.python_version(), _cpu(), detect().reason],
    ]


def _speed_setup() -> Rows:
    header, row = _setup()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    return [[*header, "cores", "load before"], [*row, str(os.cpu_count()), load]]


SETUP = Fact(name="setup", says="Measured with", rows=_setup)
SPEED_SETUP = Fact(name="speed-setup", says="Timed with one thread, on", rows=_speed_setup)
STRUCTURAL: tuple[Fact, ...] = (
    *measure_kernels.FACTS,
    *measure_gemm.FACTS,
    *measure_numbers.FACTS,
    *measure_exact.FACTS,
    *measure_bodies.FACTS,
)
TIMED: tuple[Fact, ...] = measure_speed.FACTS


def main(arguments: list[str] | None = None) -> int:
    """Print tables, or write them into the page."""
    parser = argparse.ArgumentParser(description="Measure what docs/ort.md says about ONNX Runtime.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these facts only")
    parser.add_argument("--speed", action="store_true", help="the timed facts instead of the structural ones")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/ort.md instead of printing them"
    )
    parser.add_argument("--budget", type=float, default=measure_speed.BUDGET, help="seconds for each timed ratio")
    options = parser.parse_args(arguments)
    measure_speed.BUDGET = options.budget
    facts = (SPEED_SETUP, *TIMED) if options.speed else (SETUP, *STRUCTURAL)
    known = {fact.name for fact in facts}
    for name in options.only or ():
        if name not in known:
            parser.error(f"no fact is named {name}; there are {', '.join(sorted(known))}")
    for fact in facts:
        if options.only and fact.name not in options.only:
            continue
        content = markdown(fact, fact.rows())
        if options.write:
            PAGE.write_text(replace(PAGE.read_text(encoding="utf-8"), fact.name, content), encoding="utf-8")
        else:
            print(f"### {fact.name}\n\n{content}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
