"""Convolutions over three axes: `python docs/measure_volumes.py` prints the table of docs/placement.md.

A Conv 3x3x3 on 16 x 28 x 28 points, in float and as QLinearConv (uint8 data, int8 weights, a scale a channel), with
the conversions of what it reads and gives; beside it a Conv 3x3 on 112 x 112 points, which are as many. Processor
times of one thread, the median over runs in turns; above 1, int8 is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

from measure_graph import U8, Net

from onnxq.runtime.session import SIDE_BY_SIDE, Session

POINTS = ((16, 28, 28), (112, 112))


class Shape(NamedTuple):
    inputs: int
    outputs: int
    group: int = 1


SHAPES = [
    *(Shape(n, 32) for n in (1, 3, 8, 16, 32)), Shape(16, 16), Shape(32, 4), Shape(64, 64),
    *(Shape(n, n, 4) for n in (32, 64, 128)), *(Shape(n, n, n) for n in (8, 16, 32, 48)),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Convolutions over three axes in int8.")
    parser.add_argument("--runs", type=int, default=20, help="of each form")
    told = parser.parse_args()
    print("| channels | groups | a run | 3x3x3, ms in float | times as fast in int8 | 3x3, times as fast |")
    print("|---|---|---|---|---|---|")
    for shape in SHAPES:
        (seconds, ratio), (_, flat) = (measured(shape, points, told.runs) for points in POINTS)
        run = shape.group if shape.group == shape.inputs > 1 else shape.inputs // shape.group
        sizes = f"{shape.inputs} to {shape.outputs} | {shape.group} | {run}"
        print(f"| {sizes} | {1e3 * seconds:.2f} | {ratio:.2f} | {flat:.2f} |", flush=True)


def measured(shape: Shape, points: tuple[int, ...], runs: int) -> tuple[float, float]:
    """Seconds of the float form, and how many times as fast the integer one is."""
    nets = [net(shape, points, integer=integer) for integer in (False, True)]
    sessions = [Session(one.bytes(), threads=1, config=SIDE_BY_SIDE) for one in nets]
    feeds = nets[0].feeds()
    for session in sessions:
        session.run(feeds)
    seconds: list[list[float]] = [[], []]
    for _ in range(runs):
        for session, found in zip(sessions, seconds, strict=True):
            begin = time.process_time()
            session.run(feeds)
            found.append(time.process_time() - begin)
    float_, integer = map(statistics.median, seconds)
    return float_, float_ / integer


def net(shape: Shape, points: tuple[int, ...], *, integer: bool) -> Net:
    one = Net()
    x, sizes = one.input(1, shape.inputs, *points), (shape.outputs, shape.inputs // shape.group, *[3] * len(points))
    w = one.weight(*sizes) if integer else one.normal(*sizes)
    y = one.node("Conv", one.pair(x, U8) if integer else x, w, group=shape.group, pads=[1] * 2 * len(points))
    return one.out(one.pair(y, U8) if integer else y)


if __name__ == "__main__":
    main()
