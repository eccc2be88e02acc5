"""Judges a quantized model: accuracy, speed, what runs in integer kernels, and the gate.

The package itself can be called: `onnxq.validate(...)` is `onnxq.api.validate`, whose name it bears.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return importlib.import_module("onnxq.api").validate(*arguments, **settings)


sys.modules[__name__].__class__ = _Callable
