"""Passes before the plan keep what the model computes: the one look at figures that every run takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import PassError
from onnxq.ir import walk
from onnxq.ir.tensors import onnx_dtype

RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Ops whose results change from run to run (Dropout does so in training only)."""


def is_random(graph: gs.Graph) -> bool:
    """Does any op of the graph or of the bodies in it draw random numbers?"""
    return any(
        node.op in RANDOM or (node.op == "Dropout" and len(node.inputs) > 2)
        for _, inner in walk.graphs(graph)
        for node in inner.nodes
    )


COARSE = {10: 30.0, 16: 240.0}
"""How many times as much as in float32 results may move where a graph computes in float16 or bfloat16 (element types):
it is computed in float32 from the pass float16-to-float on, and bfloat16 has three bits less."""


def coarseness(graph: gs.Graph) -> float:
    """By what factor the tolerance of float32 is widened for a graph: 1, or what `COARSE` says of its coarsest type."""
    tensors = (t for _, inner in walk.graphs(graph) for n in inner.nodes for t in (*n.inputs, *n.outputs))
    types = {onnx_dtype(t.dtype) for t in (*tensors, *graph.inputs, *graph.outputs) if t.dtype is not None}
    types |= {int(n.attrs["to"]) for _, inner in walk.graphs(graph) for n in inner.nodes if n.op == "Cast"}
    return max((factor for one, factor in COARSE.items() if one in types), default=1.0)


NORMALISED = 1e-3
"""Greatest difference that normalising passes may make on an output, relative to its largest magnitude: folding
reorders float sums."""


def check_normalised(exact: Mapping[str, Any], got: Mapping[str, Any], sample: str, *, coarse: float = 1.0) -> None:
    """The passes before the plan keep what the model computes.

    Args:
        exact: outputs before.
        got: outputs behind them.
        sample: what they were computed of, for the sentence.
        coarse: `coarseness` of the graph as it was before.

    Raises:
        PassError: they do not, on this sample.
    """
    for name, a in exact.items():
        b = got.get(name)
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not a.size:
            continue
        with np.errstate(invalid="ignore"):
            same = isinstance(b, np.ndarray) and b.shape == a.shape
            gaps = np.abs(a.astype(np.float64) - np.asarray(b, dtype=np.float64)) if same else np.array(np.inf)
            peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=1e-6))
        if same:
            gaps = gaps[np.isfinite(a)]  # what is NaN or infinite stays out, but must not become so
        gap = np.inf if np.isnan(gaps).any() else float(np.max(gaps, initial=0.0))
        if gap > NORMALISED * coarse * peak:
            raise PassError(
                f"the normalising passes changed output {name} of {sample} by {gap:.3g} "
                f"(largest value {peak:.3g}): "
                "this is a fault of a pass: find it with onnxq run --verify-each, leave it out and report it"
            )
