"""Short forms for tests of passes."""

from __future__ import annotations

import functools
from typing import Any

from onnxq.pipeline.base import Pass, Report
from onnxq.testing import assert_rewrite


def model(graph: str, opset: int = 21) -> str:
    """A graph in onnx.parser syntax with the head that models need."""
    return f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> g {graph}'


def rewrite(pass_: Pass, before: str, after: str, *, opset: int = 21, **options: Any) -> Report:
    """`assert_rewrite` on graphs without a head."""
    return assert_rewrite(pass_, model(before, opset), model(after, opset), **options)


def keep(pass_: Pass, graph: str, *reasons: str, opset: int = 21, **options: Any) -> Report:
    """The pass must leave the graph alone, with these refusals."""
    return rewrite(pass_, graph, graph, opset=opset, rewrites=0, refused=reasons, atol=0, **options)


bitwise = functools.partial(rewrite, atol=0)
