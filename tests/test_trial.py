"""What the method `auto` reads and loads while it compares methods."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq import gathering, trial
from onnxq.config.job import Job
from onnxq.data.sample import Sample
from onnxq.driver import quantize
from onnxq.faintest import Faintest
from onnxq.pipeline import prepare
from onnxq.runtime.session import Session
from onnxq.stats.calibrator import CANDIDATES
from onnxq.trial import decided, rounds, spread_samples

ROOT = Path(__file__).parent.parent
RES8 = ROOT / "models/fashion-res8/model.onnx"
CALIB = ROOT / "models/fashion-mnist/calib.npz"


class Numbers:
    """Samples 0 to count - 1, of which it counts those that were read."""

    description, preprocess_summary, labelled = "numbers", "as they are", False

    def __init__(self, count: int) -> None:
        self.positions: Sequence[int] = range(count)
        self.read: list[int] = []
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Sample]:
        for position in self.positions:
            self.read.append(position)
            yield Sample(index=position, name=str(position), inputs={"x": np.array([position])})


class Picked(Numbers):
    """Numbers that give some of themselves, unless they cannot know where these are."""

    def __init__(self, count: int, *, able: bool = True) -> None:
        super().__init__(count)
        self.able = able

    def pick(self, positions: Sequence[int]) -> Picked | None:
        if not self.able:
            return None
        picked = copy.copy(self)
        picked.positions = positions
        return picked


@pytest.mark.parametrize(
    ("data", "read"),
    [(Numbers(10), list(range(8))), (Picked(10), [0, 2, 5, 7]), (Picked(10, able=False), list(range(8)))],
    ids=["from the start", "picked", "positions unknown"],
)
def test_samples_that_are_not_wanted_are_not_read_where_that_is_possible(data: Numbers, read: list[int]) -> None:
    assert [s.index for s in spread_samples(data, 4)] == [0, 2, 5, 7]
    assert data.read == read


def _quantized(out: Path) -> tuple[bytes, str | None]:
    job = Job(model=RES8).with_overrides(
        output=out, calib=str(CALIB), threads=1, speed=False, calib_limit=32, placement="rules"
    )
    result = quantize(job.with_overrides(validate=False))
    return out.read_bytes(), next(n for n in result.notes if n.startswith("Method "))


def test_each_model_is_loaded_once_a_round_and_no_two_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    loaded: list[int] = []

    def session(*args: Any, **options: Any) -> Session:
        assert not alive
        made = Session(*args, **options)
        alive.add(made)
        loaded.append(1)
        return made

    monkeypatch.setattr(trial, "Session", session)
    _, note = _quantized(tmp_path / "o.onnx")
    assert note is not None
    assert " on 32 calibration samples" in note  # all there are: the model is light
    assert 6 <= len(loaded) <= 2 * (1 + len(CANDIDATES))
    assert " (on 16, " in note and " there)" in note  # a method that was clearly behind


def test_a_better_figure_that_was_not_taken_has_a_word_why() -> None:
    def scores(**levels: list[float]) -> dict[str, Faintest]:
        return {n: Faintest(decibels=float(np.mean(x)), where="", levels=np.array(x)) for n, x in levels.items()}

    near = scores(minmax=[40.0, 20.0], mse=[40.6, 20.6], entropy=[39.0])
    assert trial._told("minmax", near, floats=True) == (
        "Method minmax was chosen by the outputs' SQNR on 2 calibration samples: minmax 30.0 dB, mse 30.6 dB, "
        "entropy 39.0 dB (on 1, minmax 40.0 there); a method that clips more must be 1 dB better."
    )
    far = scores(minmax=[40.0, 20.0], entropy=[39.0])
    assert trial._told("minmax", far, floats=True).endswith("entropy 39.0 dB (on 1, minmax 40.0 there).")
    equal = scores(minmax=[99.0], mse=[98.0])
    assert trial._told("minmax", equal, floats=False).endswith("minmax 99.0 %, mse 98.0 %.")


def test_methods_that_may_yet_turn_the_choice_go_on() -> None:
    base, noise = np.linspace(20, 40, 16), np.tile([-1.0, 1.0], 8)
    scores = {
        "minmax": list(base),
        "mixed": list(base + 0.5 + 0.1 * noise),  # surely less than a decibel better
        "mse": list(base + 0.5 + 4.0 * noise),  # who knows
        "percentile": list(base - 5 + 0.1 * noise),
    }
    assert decided(scores) == ("minmax", ["minmax", "mse"])
    assert decided({**scores, "entropy": list(base + 9)}) == ("entropy", ["entropy"])
    assert decided({"minmax": [1.0], "mse": [0.0]}) == ("minmax", ["minmax", "mse"])  # one sample says nothing


def test_a_method_that_clips_less_comes_back_while_it_may_be_within_the_margin() -> None:
    """It was left behind by a little more than the margin, which further samples may undo."""
    base = np.linspace(20, 40, 16)
    near = {"minmax": list(base), "mse": list(base + 1.2 + np.tile([-1.0, 1.0], 8))}
    assert decided(near) == ("mse", ["minmax", "mse"])
    far = {"minmax": list(base), "mse": list(base + 3.0 + np.tile([-1.0, 1.0], 8))}
    assert decided(far) == ("mse", ["mse"])


@pytest.mark.parametrize("total", [1, 3, 16, 17, 64, 65, 256, 5000])
def test_rounds_are_spread_and_no_sample_is_in_two(total: int) -> None:
    found = rounds(total)
    together = [position for one in found for position in one]
    assert len(set(together)) == len(together) == min(total, 128, max(16, total // 4))
    assert all(one == sorted(one) and one[-1] < total for one in found)
    assert len(found[0]) == min(total, 16)
    assert sum(map(len, rounds(total, light=True))) == min(total, 128)
    if total == 5000:
        assert all(one[0] < total / 10 and one[-1] > total * 0.9 for one in found)


def test_of_large_outputs_fewer_samples_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "HELD", 100)  # ten classes in float32 are 40 bytes
    _, note = _quantized(tmp_path / "o.onnx")
    assert note is not None
    assert " on 6 calibration samples" in note  # three in each of two rounds


def test_the_model_is_not_run_again_for_what_its_conversion_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the conversion and behind it; behind the normalising passes, the run that observes shapes compares."""
    runs: list[object] = []
    observed: list[bool] = []
    literally, observe = prepare.run_literally, gathering.observe

    def run(model: Any, inputs: Any) -> Any:
        runs.append(model)
        return literally(model, inputs)

    def watched(*arguments: Any, outputs: bool, **options: Any) -> Any:
        observed.append(outputs)
        return observe(*arguments, outputs=outputs, **options)

    monkeypatch.setattr(prepare, "run_literally", run)
    monkeypatch.setattr(gathering, "run_literally", run)
    monkeypatch.setattr(gathering, "observe", watched)
    _quantized(tmp_path / "o.onnx")
    assert len(runs) == 2
    assert observed == [True]
