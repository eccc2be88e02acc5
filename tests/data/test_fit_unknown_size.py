"""A dimension named "?" is unknown, not a symbol: two of them in one input may differ."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq.data.fit import fit_all
from onnxq.data.sample import InputSpec
from onnxq.errors import DataError

PICTURE = np.zeros((1, 3, 48, 192), dtype=np.float32)


def spec(size: str) -> InputSpec:
    return InputSpec(name="x", dtype=np.dtype(np.float32), shape=(None, 3, size, size))


def test_two_question_marks_may_differ() -> None:
    assert fit_all({"x": PICTURE}, [spec("?")], "a.npy")["x"].shape == (1, 3, 48, 192)


def test_two_uses_of_a_symbol_may_not() -> None:
    with pytest.raises(DataError, match='dimension "S" is 48 in input "x" and 192'):
        fit_all({"x": PICTURE}, [spec("S")], "a.npy")
