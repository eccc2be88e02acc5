"""GELU as x * sigmoid(alpha * x), which integers compute with a table and a product: the alpha that fits the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.optable import NEARLY
from onnxq.plan.plan import Plan
from onnxq.plan.spread import Spread, Spreads
from onnxq.plan.vetoes import Ranges

USUAL = 1.702
"""Fits best over all x: the gate is off by up to 0.0095, GELU by 0.0203 (Hendrycks and Gimpel, "Gaussian Error Linear
Units", 2016, section 2)."""

_TRIED = np.linspace(1.5, 1.9, 81)
"""At 0 GELU has the curvature of 4 / sqrt(2 pi) = 1.596; where x is large, larger ones are better."""


def fitted(spread: Spread) -> float:
    """The alpha for which the mean square of x * sigmoid(alpha * x) - gelu(x) is least, in steps of 0.005.

    The difference is even in x, so that magnitudes tell all.
    """
    from scipy.special import expit, ndtr

    x = spread.magnitudes
    off = x * (expit(_TRIED[:, None] * x) - ndtr(x))
    return float(_TRIED[np.argmin(off**2 @ spread.counts)]) if spread.energy else USUAL


def with_gates(plan: Plan, graph: gs.Graph, ranges: Ranges) -> Plan:
    """The plan with the alpha of each GELU that is to be integer, by the distribution of what it reads."""
    alphas: dict[str, float] = {}
    for _, inner in walk.graphs(graph):
        for node in inner.nodes:
            if node.op in NEARLY and node.name in plan.gates:
                spread = ranges.spread(node.inputs[0].name) if isinstance(ranges, Spreads) else None
                alphas[node.name] = USUAL if spread is None or spread.guessed else fitted(spread)
    return replace(plan, alphas=alphas) if alphas else plan
