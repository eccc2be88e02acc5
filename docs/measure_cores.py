"""How far apart are two cores, and does that change? A line every half second.

    python docs/measure_cores.py models/fashion-mobilenet/model.onnx --seconds 30

A word that one process writes and another answers: the median round trip, microseconds (what Python adds included);
and the model with two threads, milliseconds. On a machine of its own both stay; on a virtual one the host may move
the cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from onnxq.gathering import made_up_samples
from onnxq.ir.load import load
from onnxq.runtime.session import Session
from onnxq.runtime.turns import IN_TURNS, Row, row, timed

_TRIPS, _PIECE_SECONDS, _PAUSE_SECONDS = 2000, 0.1, 0.3


def main() -> None:
    """Print what is found, and between which values it lies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    told = parser.parse_args()
    feeds = made_up_samples(load(told.model))[0].inputs
    session = Session(told.model, threads=2, config=IN_TURNS)
    trips, runs, end = [], [], time.monotonic() + told.seconds
    print("round trip, us | model, ms")
    while time.monotonic() < end:
        trips.append(round_trip() * 1e6)
        run = partial(session.run, feeds)
        runs_of_one = row(timed(run, Row(5, 10), 2, time.perf_counter), 2)
        begin, own = time.monotonic(), []
        while time.monotonic() < begin + _PIECE_SECONDS:
            own.append(timed(run, runs_of_one, 2, time.perf_counter))
        runs.append(statistics.median(own) * 1e3)
        print(f"{trips[-1]:.2f} | {runs[-1]:.3f}", flush=True)
        time.sleep(_PAUSE_SECONDS)
    for name, values in (("round trip, us", trips), ("model, ms", runs)):
        low, *_, high = statistics.quantiles(values, n=10)
        print(f"{name}: 10th percentile {low:.3f}, median {statistics.median(values):.3f}, 90th {high:.3f}")


def round_trip() -> float:
    """Seconds, the median."""
    memory = SharedMemory(create=True, size=64)
    assert memory.buf is not None  # it is open
    try:
        other = multiprocessing.Process(target=answer, args=(memory.name,))
        other.start()
        word, found = memory.buf.cast("q"), []
        for trip in range(1, 2 * _TRIPS, 2):
            begin = time.perf_counter()
            word[0] = trip
            while word[0] == trip:
                pass
            found.append(time.perf_counter() - begin)
        other.join()
        word.release()
    finally:
        memory.close()
        memory.unlink()
    return statistics.median(found)


def answer(name: str) -> None:
    """The other process: each odd number becomes the next even one."""
    memory = SharedMemory(name=name)
    assert memory.buf is not None  # it is open
    word = memory.buf.cast("q")
    for trip in range(1, 2 * _TRIPS, 2):
        while word[0] != trip:
            pass
        word[0] = trip + 1
    word.release()
    memory.close()


if __name__ == "__main__":
    main()
