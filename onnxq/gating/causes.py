"""Where a failure comes from: the tensors whose own encoding loses most."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from onnxq.data.sample import Dataset
from onnxq.validate.gate import Check
from onnxq.validate.layers import LayerAccuracy, layers

SAMPLES = 8
"""That tensors are compared on."""

NAMED = 3
"""Layers that are named at most."""

NEAR_DB = 6.0
"""Behind the worst one: those that lose nearly as much."""

ABOUT = ("accuracy", "drift", "portability")
"""Groups whose failures layers explain."""


def causes(baseline: Path, candidate: Path, data: Dataset, checks: Sequence[Check]) -> tuple[str, ...]:
    """If a limit on accuracy is broken: the layers that lose most by their own encoding, the worst first.

    An encoding's own loss is the tensor against itself behind its Q and DQ: a wrong scale shows in that layer alone,
    whatever the layers before it lost.
    """
    if not any(c.group in ABOUT and c.outcome == "fail" for c in checks):
        return ()
    samples = [s.inputs for s in itertools.islice(iter(data), SAMPLES)]
    found = layers(baseline, candidate, samples, worst=0)
    ordered = sorted(found.tensors, key=lambda t: t.own_sqnr_db)[:NAMED]
    return tuple(sentence(t) for t in ordered if t.own_sqnr_db <= ordered[0].own_sqnr_db + NEAR_DB)


def sentence(layer: LayerAccuracy) -> str:
    """What one tensor loses."""
    what = f"{layer.op} {layer.node}" if layer.node else f"input {layer.tensor}"
    clipped = f", {layer.clipped:.1%} of its values lie beyond the range" if layer.clipped >= 0.001 else ""
    return (
        f"{what}: its {layer.type} encoding alone leaves {layer.own_sqnr_db:.1f} dB (range {layer.low:.4g} to "
        f"{layer.high:.4g}, values {layer.least:.4g} to {layer.greatest:.4g}{clipped})"
    )
