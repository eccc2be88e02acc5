"""Pieces of a run: cut anywhere, done in any order, killed at any moment, they give the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SHAPE, save_classifier, save_samples

from onnxq.data.open import open_dataset
from onnxq.data.sample import InputSpec
from onnxq.ir.load import load
from onnxq.stats.cache import Cache, CacheWarning, own_digest
from onnxq.stats.checkpoint import Piece, Pieces
from onnxq.stats.collect import collect
from onnxq.stats.engine import calibrate
from onnxq.stats.statistics import Statistics

SPECS = (InputSpec(name="image", dtype=np.dtype(np.float32), shape=("N", *SHAPE)),)
NAMES = ["image", "r", "scores"]
COUNT = 12


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_classifier(tmp_path / "m.onnx")
    save_samples(tmp_path / "s.npz", COUNT)
    return tmp_path


def data(place: Path) -> Any:
    return open_dataset(place / "s.npz", SPECS)


def part(place: Path, start: int, stop: int) -> Statistics:
    return collect(load(place / "m.onnx"), NAMES, Piece(data(place), start, stop), threads=1)


def saved(statistics: Statistics, path: Path) -> bytes:
    statistics.save(path)
    return path.read_bytes()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_piece_holds_the_samples_of_its_positions(place: Path) -> None:
    assert [s.index for s in Piece(data(place), 3, 6)] == [3, 4, 5]
    assert len(Piece(data(place), 3, 6)) == 3
    # a data set that cannot begin in the middle gives the same
    function = open_dataset("s.py:make", SPECS, base=_function(place))
    assert [s.index for s in Piece(function, 3, 6)] == [3, 4, 5]


def _function(place: Path) -> Path:
    (place / "s.py").write_text(
        f"import numpy as np\ndef make():\n    return [np.full((1, 3, 8, 8), i, 'f') for i in range({COUNT})]\n"
    )
    return place


def test_a_piece_ends_when_its_time_is_over_and_stays_so(place: Path) -> None:
    piece = Piece(data(place), 2, COUNT, seconds=3.0, clock=Clock())
    next(iter(piece))  # a look at the first sample decides nothing
    assert [s.index for s in piece] == [2, 3, 4]
    assert piece.stop == 5
    assert [s.index for s in piece] == [2, 3, 4]
    patient = Piece(data(place), 2, COUNT, seconds=99.0, clock=Clock())
    assert len(list(patient)) == COUNT - 2
    assert patient.stop == COUNT


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_pieces_merge_to_the_whole_in_any_order(place: Path, order: tuple[int, ...]) -> None:
    cuts = [(0, 5), (5, 6), (6, COUNT)]
    pieces = Pieces(COUNT, place / "partial")
    for i in order:
        assert pieces.gaps()
        pieces.add(*cuts[i], part(place, *cuts[i]))
    assert pieces.gaps() == []
    assert saved(pieces.whole(), place / "a.npz") == saved(part(place, 0, COUNT), place / "b.npz")


def test_checkpoints_are_taken_over(place: Path) -> None:
    first = Pieces(COUNT, place / "partial")
    first.add(0, 2, part(place, 0, 2))
    first.add(2, 5, part(place, 2, 5))
    first.add(8, 9, part(place, 8, 9))
    assert len(list((place / "partial").iterdir())) == 2  # neighbours are one file
    second = Pieces(COUNT, place / "partial")
    assert second.resumed == 6
    assert second.gaps() == [(5, 8), (9, COUNT)]
    second.add(5, 8, part(place, 5, 8))
    second.add(9, COUNT, part(place, 9, COUNT))
    assert second.whole() == part(place, 0, COUNT)
    second.clear()
    assert not (place / "partial").exists()


def test_of_pieces_that_overlap_only_one_counts(place: Path) -> None:
    for start, stop in [(0, 4), (0, 6), (3, 9)]:  # as two processes leave them
        Pieces(COUNT, None)
        (place / "partial").mkdir(exist_ok=True)
        part(place, start, stop).save(place / "partial" / f"{start}-{stop}-{start + stop}.npz")
    pieces = Pieces(COUNT, place / "partial")
    assert (pieces.resumed, pieces.gaps()) == (6, [(6, COUNT)])


def test_adjacent_pieces_of_two_processes_cover_the_whole(place: Path) -> None:
    (place / "partial").mkdir()
    for start, stop in [(0, 4), (4, COUNT)]:
        part(place, start, stop).save(place / "partial" / f"{start}-{stop}-7.npz")
    pieces = Pieces(COUNT, place / "partial")
    assert pieces.gaps() == []
    assert pieces.whole() == part(place, 0, COUNT)


def test_a_damaged_checkpoint_is_thrown_away(place: Path) -> None:
    (place / "partial").mkdir()
    (place / "partial" / "0-4-7.npz").write_bytes(b"half")
    (place / "partial" / "notes.npz").write_bytes(b"")
    with pytest.warns(CacheWarning, match="a damaged checkpoint was thrown away"):
        assert Pieces(COUNT, place / "partial").gaps() == [(0, COUNT)]
    assert not (place / "partial" / "0-4-7.npz").exists()


RUNNER = """
import sys
from pathlib import Path
import numpy as np
from onnxq.data.open import open_dataset
from onnxq.data.sample import InputSpec
from onnxq.ir.load import load
from onnxq.stats import cache
from onnxq.stats.cache import Cache
from onnxq.stats.engine import calibrate

place = Path(sys.argv[1])
specs = (InputSpec(name="image", dtype=np.dtype(np.float32), shape=("N", 3, 8, 8)),)
class Waiting:
    '''Says when it is at sample 7, and waits there to be killed.'''
    def __init__(self, data):
        self.data = data
    def __getattr__(self, name):
        return getattr(self.data, name)
    def __len__(self):
        return len(self.data)
    def part(self, start, stop):
        return Waiting(self.data.part(start, stop))
    def __iter__(self):
        for sample in self.data:
            if sample.index == 7:
                print("at 7", flush=True)
                sys.stdin.read()
            yield sample
data = Waiting(open_dataset(place / "s.npz", specs))
cache.own_digest = lambda: sys.argv[2]
calibrate(load(place / "m.onnx"), ["image", "r", "scores"], data, threads=1, cache=Cache(place / "cache"), seconds=0)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(place: Path) -> None:
    process = subprocess.Popen(
        # our source is part of the key: an edit between the two runs would be a new key
        [sys.executable, "-c", RUNNER, str(place), own_digest()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at 7\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    model, cache = load(place / "m.onnx"), Cache(place / "cache")
    assert not (place / "cache" / "entries").exists()
    seen: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def __len__(self) -> int:
            return COUNT

        def part(self, start: int, stop: int) -> Any:
            seen.extend(range(start, stop))
            return whole.part(start, stop)

    whole, counting = data(place), Counting()
    done = calibrate(model, NAMES, counting, threads=1, cache=cache)  # type: ignore[arg-type]
    assert (done.ran, done.resumed, done.cached) == (5, 7, False)
    assert set(seen) == set(range(7, COUNT))
    assert saved(done.statistics, place / "a.npz") == saved(
        calibrate(model, NAMES, whole, threads=1).statistics, place / "b.npz"
    )
    assert not list((place / "cache" / "partial").glob("*"))


def test_feedback_and_skipped_files_run_in_one_go(place: Path) -> None:
    skipping = open_dataset(place / "s.npz", SPECS, skip_bad=True)
    done = calibrate(load(place / "m.onnx"), NAMES, skipping, threads=1, cache=Cache(place / "cache"), seconds=0)
    assert done.statistics.tensors == part(place, 0, COUNT).tensors
    assert done.key is not None
    with pytest.raises(Exception, match="feedback names the output"):
        calibrate(load(place / "m.onnx"), NAMES, data(place), threads=1, feedback={"x": "image"})
