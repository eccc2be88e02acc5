"""Helpers of the data tests: input specs and exact error sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest

from onnxq.data import InputSpec
from onnxq.errors import OnnxqError

Spec = Callable[..., InputSpec]
Refuses = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def spec() -> Spec:
    """`spec(1, 3, "H", "W", name="x", dtype="f4")`."""

    def make(*shape: int | str | None, name: str = "x", dtype: Any = "float32") -> InputSpec:
        return InputSpec(name=name, dtype=np.dtype(dtype), shape=shape)

    return make


@pytest.fixture
def refuses() -> Refuses:
    """The block must raise an error of the tree, exit code 2, with exactly this sentence."""

    @contextmanager
    def check(sentence: str, kind: type[OnnxqError] = OnnxqError) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        assert str(caught.value) == sentence
        assert caught.value.exit_code == 2

    return check
