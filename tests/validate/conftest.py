"""Tiny models as text, and data sets that live in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.data.sample import Sample


class ListData:
    """Samples given as (inputs, label)."""

    def __init__(self, items: Sequence[tuple[dict[str, Any], Any]], *, labelled: bool = True) -> None:
        self.items = items
        self.labelled = labelled
        self.description = f"{len(items)} samples of a list"
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        for i, (inputs, label) in enumerate(self.items):
            yield Sample(index=i, name=f"item {i}", inputs=inputs, label=label)


@pytest.fixture
def data() -> type[ListData]:
    return ListData


@pytest.fixture
def build() -> Callable[..., bytes]:
    """`build("agraph (...) => (...) {...}", w=array)` -> serialized model, opset 21 and com.microsoft."""

    def make(graph: str, opset: int = 21, meta: dict[str, str] | None = None, **weights: np.ndarray[Any, Any]) -> bytes:
        head = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
        model = onnx.parser.parse_model(f"{head} {graph}")
        for name, value in weights.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        for i, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{i}"
        onnx.helper.set_model_props(model, meta or {})
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a model into a fresh file."""
    count = iter(range(1000))

    def save(model: bytes) -> Path:
        path = tmp_path / f"model{next(count)}.onnx"
        path.write_bytes(model)
        return path

    return save
