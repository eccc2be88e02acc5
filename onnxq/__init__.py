"""The compiler-grade quantizer for ONNX: a float model and a folder of samples in, a faster, checked int8 model out.

    import onnxq

    result = onnxq.quantize("model.onnx", "calib/", evaluation="eval/", metric="top1")
    onnxq.validate("model.onnx", result.candidate, "eval/", metric="top1")
    onnxq.gate("model.onnx", result.candidate, "eval/", metric="top1", max_drop=0.01)
    onnxq.write_report(result, "report.html")

Importing this package imports nothing else; each name is loaded when it is used. `onnxq.testing` is for plugin authors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxq.api import gate, quantize, read_report, validate, write_report
    from onnxq.config.job import Job
    from onnxq.errors import OnnxqError
    from onnxq.validate.result import Result

_HOMES = {
    "quantize": "onnxq.api",
    "gate": "onnxq.api",
    "write_report": "onnxq.api",
    "read_report": "onnxq.api",
    "Job": "onnxq.config.job",
    "OnnxqError": "onnxq.errors",
    "Result": "onnxq.validate.result",
}

__all__ = ["Job", "OnnxqError", "Result", "gate", "quantize", "read_report", "validate", "write_report"]


def __getattr__(name: str) -> Any:
    if name == "validate":  # the package of this name can be called
        return importlib.import_module("onnxq.validate")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
