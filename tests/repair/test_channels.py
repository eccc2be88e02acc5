from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rewriting import model

from onnxq.errors import CalibrationError
from onnxq.ir import text
from onnxq.ir.model import Model
from onnxq.repair import channels
from onnxq.repair.channels import KEPT, ROWS, observe_channels

Inputs = dict[str, NDArray[np.float32]]


def some(opset: int = 21) -> Model:
    return text.parse(
        model("(float[n,m,3] x) => (float[n,m,3] y) { a = Neg(x) b = Mul(a, a) y = Relu(b) }", opset),
    )


def samples(count: int, size: int = 5) -> list[Inputs]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(0, [1, 4, 16], (2, size + i % 2, 3)).astype(np.float32)} for i in range(count)]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_extremes_are_those_of_all_elements(opset: int) -> None:
    given = samples(7)
    found = observe_channels(some(opset), {"a": 3, "b": 3}, iter(given), threads=1)
    a = -np.concatenate([s["x"].reshape(-1, 3) for s in given])
    for name, values in {"a": a, "b": a * a}.items():
        np.testing.assert_array_equal(found[name].low, values.min(axis=0))
        np.testing.assert_array_equal(found[name].high, values.max(axis=0))
        np.testing.assert_array_equal(found[name].amax, np.abs(values).max(axis=0))


def test_rows_are_spread_and_come_from_every_sample() -> None:
    given = samples(4, size=40)
    rows = -observe_channels(some(), {"a": 3}, given, threads=1)["a"].rows
    assert rows.shape == (4 * ROWS, 3)
    for index, sample in enumerate(given):
        whole = sample["x"].reshape(-1, 3).tolist()
        places = [whole.index(row) for row in rows[index * ROWS : (index + 1) * ROWS].tolist()]
        assert np.diff(places).min() >= len(whole) // ROWS - 1
        assert places[0] < len(whole) / ROWS


def test_only_extremes_and_rows_leave_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    class Watched(channels.Session):
        def run(self, *args: object) -> dict[str, NDArray[np.float32]]:
            found = super().run(*args)  # type: ignore[arg-type]
            fetched.append(sum(v.size for v in found.values()))
            return found

    monkeypatch.setattr(channels, "Session", Watched)
    observe_channels(some(), {"a": 3}, samples(2, size=5000), threads=1)
    assert fetched == [3 + 3 + 3 * ROWS] * 2


def test_memory_is_bounded() -> None:
    count = KEPT // ROWS
    assert len(observe_channels(some(), {"a": 3}, samples(count), threads=1)["a"].rows) == KEPT
    given = samples(2 * count + 2)
    rows = -observe_channels(some(), {"a": 3}, given, threads=1)["a"].rows
    assert len(rows) <= KEPT
    kept = [i for i, s in enumerate(given) if rows[:, 0].tolist().count(s["x"][0, 0, 0])]
    assert len(kept) > 10
    assert set(kept) <= set(range(0, len(given), 4))


def test_no_tensor_no_run() -> None:
    assert observe_channels(some(), {}, iter([]), threads=1) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    given = samples(3)
    given[1]["x"][0, 0, 1] = bad
    with pytest.raises(CalibrationError, match='sample 1: the tensor "a" holds NaN or an infinity'):
        observe_channels(some(), {"a": 3}, given, threads=1)


def test_a_sample_that_does_not_run_and_none_at_all() -> None:
    with pytest.raises(CalibrationError, match="sample 1: ONNX Runtime"):
        observe_channels(some(), {"a": 3}, [*samples(1), {"x": np.zeros((2, 3), np.float32)}], threads=1)
    with pytest.raises(CalibrationError, match="there are no samples"):
        observe_channels(some(), {"a": 3}, [], threads=1)
