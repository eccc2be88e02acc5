"""What the method `auto` reads and loads while it compares methods."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxq import provider, trial
from onnxq.config.job import Job
from onnxq.data.sample import Sample
from onnxq.driver import quantize
from onnxq.pipeline import prepare
from onnxq.quantization import CANDIDATES
from onnxq.runtime.session import Session
from onnxq.trial import spread_samples

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


def test_models_stay_loaded_between_rounds_and_the_choice_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Session] = []

    def session(*args: Any, **options: Any) -> Session:
        loaded.append(Session(*args, **options))
        return loaded[-1]

    monkeypatch.setattr(trial, "Session", session)
    kept = _quantized(tmp_path / "kept.onnx")
    few = len(loaded)
    monkeypatch.setattr(trial, "KEPT", 0)
    assert _quantized(tmp_path / "again.onnx") == kept
    assert few <= 1 + len(CANDIDATES) < len(loaded) - few


def test_the_model_is_not_run_again_for_what_its_conversion_showed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the conversion and behind it; behind the normalising passes, the run that observes shapes compares."""
    runs: list[object] = []
    observed: list[bool] = []
    literally, observe = prepare.run_literally, provider.observe

    def run(model: Any, inputs: Any) -> Any:
        runs.append(model)
        return literally(model, inputs)

    def watched(*arguments: Any, outputs: bool, **options: Any) -> Any:
        observed.append(outputs)
        return observe(*arguments, outputs=outputs, **options)

    monkeypatch.setattr(prepare, "run_literally", run)
    monkeypatch.setattr(provider, "run_literally", run)
    monkeypatch.setattr(provider, "observe", watched)
    _quantized(tmp_path / "o.onnx")
    assert len(runs) == 2
    assert observed == [True]
