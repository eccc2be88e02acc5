"""A pytest plugin that keeps every small model that the tests of passes run in ONNX Runtime without optimizations,
with its inputs: what `assert_rewrite`, `Qdq.fuse` and all other helpers compare becomes food for other runtimes.

    ONNXQ_RECORD=folder ONNXQ_RECORD_TESTS=5 python -m pytest -p recorder tests/passes

writes `<test module>-<digest>.onnx` and `.npz`; ONNXQ_RECORD_TESTS is the greatest number of tests per module (without
it, all).
"""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq.runtime.session import Level, Session

SMALL = 200_000
"""Greatest file (bytes) that is kept."""


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(os.environ["ONNXQ_RECORD"])
    load, run = Session.__init__, Session.run

    def loading(self: Session, model: Path | bytes, **options: Any) -> None:
        load(self, model, **options)
        if options.get("level", Level.ALL) is Level.OFF and isinstance(model, bytes) and len(model) <= SMALL:
            vars(self)["recorded"] = model

    def running(
        self: Session, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        results = run(self, inputs, outputs)
        model = vars(self).pop("recorded", None)  # one set of inputs per session
        if model is not None and all(isinstance(v, np.ndarray) and v.dtype.kind in "fiub" for v in inputs.values()):
            test = os.environ["PYTEST_CURRENT_TEST"].split("::", maxsplit=1)[0]
            arrays = b"".join(k.encode() + np.asarray(v).tobytes() for k, v in sorted(inputs.items()))
            digest = hashlib.sha256(model + arrays).hexdigest()[:16]
            path = folder / f"{Path(test).stem}-{digest}.onnx"
            path.write_bytes(model)
            np.savez(path.with_suffix(".npz"), **{k: np.asarray(v) for k, v in inputs.items()})
        return results

    Session.__init__ = loading  # type: ignore[assignment,method-assign]
    Session.run = running  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = int(os.environ.get("ONNXQ_RECORD_TESTS", "0"))
    if most:
        seen: collections.Counter[Path] = collections.Counter()
        kept = []
        for item in items:
            seen[item.path] += 1
            if seen[item.path] <= most:
                kept.append(item)
        items[:] = kept
