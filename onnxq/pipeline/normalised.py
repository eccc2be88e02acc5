"""Passes before the plan keep what the model computes: the one look at figures that every run takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.errors import PassError
from onnxq.ir import walk

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


NORMALISED = 1e-3
"""Greatest difference that normalising passes may make on an output, relative to its largest magnitude: folding
reorders float sums."""


def check_normalised(exact: Mapping[str, Any], got: Mapping[str, Any], sample: str) -> None:
    """The passes before the plan keep what the model computes.

    Raises:
        PassError: they do not, on this sample.
    """
    for name, a in exact.items():
        b = got.get(name)
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or not a.size:
            continue
        loose = 30 if a.dtype == np.float16 else 1  # float16 graphs are computed in float32 from here on
        with np.errstate(invalid="ignore"):
            same = isinstance(b, np.ndarray) and b.shape == a.shape
            gaps = np.abs(a.astype(np.float64) - np.asarray(b, dtype=np.float64)) if same else np.array(np.inf)
            peak = float(np.max(np.abs(a[np.isfinite(a)]), initial=1e-6))
        if same:
            gaps = gaps[np.isfinite(a)]  # what is NaN or infinite stays out, but must not become so
        gap = np.inf if np.isnan(gaps).any() else float(np.max(gaps, initial=0.0))
        if gap > NORMALISED * loose * peak:
            raise PassError(
                f"the normalising passes changed output {name} of {sample} by {gap:.3g} "
                f"(largest value {peak:.3g}): "
                "this is a fault of a pass: find it with onnxq run --verify-each, leave it out and report it"
            )
