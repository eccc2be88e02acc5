"""State that the data lack is zero; state that they hold is taken; other faults stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq.data.preprocess import Preprocess
from onnxq.data.sample import InputSpec
from onnxq.data.state import WithState, open_stateful
from onnxq.errors import DataError

X = InputSpec(name="x", dtype=np.dtype(np.float32), shape=("N", 4))
H = InputSpec(name="h", dtype=np.dtype(np.float32), shape=(2, "N", 3))


def opened(path: Path, state: tuple[str, ...] = ("h",), base: Path = Path()) -> object:
    return open_stateful(path, (X, H), Preprocess(), state=state, base=base)


def test_state_that_the_data_lack_is_zero_with_free_sizes_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    data = opened(tmp_path / "d.npz")
    assert isinstance(data, WithState)
    samples = list(data)
    assert len(data) == len(samples) == 3
    assert samples[1].inputs["x"].tolist() == [[4, 5, 6, 7]]
    assert samples[1].inputs["h"].shape == (2, 1, 3)
    assert not samples[1].inputs["h"].any()
    assert (data.description, data.labelled, data.skipped) == (f"3 samples of {tmp_path / 'd.npz'}", False, [])
    assert data.preprocess_summary == "arrays as stored"
    part = data.part(1, 2)  # type: ignore[attr-defined]
    assert [s.index for s in part] == [1]
    picked = data.pick([0, 2])  # type: ignore[attr-defined]
    assert [s.inputs["x"][0, 0] for s in picked] == [0, 8]
    assert len(picked) == 2
    assert not any(s.inputs["h"].any() for s in picked)
    assert "h" in data.identity()[0]  # type: ignore[attr-defined]


def test_state_in_the_data_is_taken(tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(
        "import numpy as np\ndef make():\n"
        "    yield {'x': np.ones((1, 4), 'f'), 'h': np.full((2, 1, 3), 7, 'f')}\n"
        "def without():\n    yield {'x': np.ones((1, 4), 'f')}\n"
    )
    data = open_stateful("d.py:make", (X, H), Preprocess(), state=("h",), base=tmp_path)
    assert not isinstance(data, WithState)
    assert [float(s.inputs["h"].max()) for s in data] == [7.0]
    zero = open_stateful("d.py:without", (X, H), Preprocess(), state=("h",), base=tmp_path)
    assert isinstance(zero, WithState)
    assert zero.digest() != data.digest()  # type: ignore[attr-defined]


def test_without_feedback_a_missing_input_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((3, 4), np.float32))
    with pytest.raises(DataError, match='lacks the input "h"'):
        opened(tmp_path / "d.npz", ())


def test_another_missing_input_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", y=np.ones((3, 4), np.float32), z=np.ones(3, np.float32))
    with pytest.raises(DataError, match='lacks the input "x"'):
        opened(tmp_path / "d.npz")


def test_where_a_bad_file_may_move_the_rest_nothing_is_picked(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    data = open_stateful(tmp_path / "d.npz", (X, H), Preprocess(), state=("h",), skip_bad=True)
    assert data.pick([0, 2]) is None  # type: ignore[attr-defined]
