"""Large arrays lie in files that have no name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from onnxq.ir.spill import SPILL_FROM, room


def test_large_arrays_are_mapped_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = room((SPILL_FROM // 4, 2, 2), np.int8)
    assert isinstance(made, np.memmap)
    made[-1] = 5
    assert (made[-1].tolist(), made.shape) == ([[5, 5], [5, 5]], (SPILL_FROM // 4, 2, 2))
    assert not list(tmp_path.iterdir())


def test_small_arrays_are_not() -> None:
    assert not isinstance(room((SPILL_FROM - 1,), np.int8), np.memmap)
