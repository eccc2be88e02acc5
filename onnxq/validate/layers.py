"""Where in the network does the error come in? Float against quantized values at every tensor that the file quantizes.

Both files run with optimizations off (what Q and DQ mean literally) on a few samples, their inner tensors as further
outputs. A quantized tensor is one that a QuantizeLinear reads and whose DequantizeLinear is read again, if the float
model has a tensor of that name, which files of onnxq and of most other tools keep. Only the main graph is looked at.

Costs a run of each file without optimizations per sample, in parts (see `onnxq.validate.inner`), besides loading both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, IntType
from onnxq.errors import ModelError
from onnxq.ir.load import load
from onnxq.ir.model import Model
from onnxq.optable import ROWS
from onnxq.stats.observers import Histogram
from onnxq.stats.statistics import Statistics
from onnxq.stats.taps import produced
from onnxq.validate.inner import inner_values
from onnxq.validate.metrics.fidelity import decibels

Inputs = Mapping[str, NDArray[Any]]

GROUP = 32
"""Tensors that are looked at together: all at once would keep every activation of a large model in memory."""

WORST = 8
"""Tensors of which a histogram is kept."""

BINS = 64
"""Bars of a histogram."""


@dataclass(frozen=True, kw_only=True)
class LayerAccuracy:
    """One quantized tensor, over all elements of all samples that were run.

    Attributes:
        tensor: its name in both files.
        node, op: what makes it in the float model; "" and "input" for inputs.
        type: integer type of its encoding.
        low, high: the least and the greatest real number of its encoding; values beyond are clipped.
        least, greatest: of the float model.
        clipped: share of the float model's elements that lie more than half a step beyond, 0 to 1; nearer ones lose no
            more than by rounding.
        sqnr_db: float model against quantized, dB: all errors of the layers before are in it.
        own_sqnr_db: the tensor against itself behind its own Q and DQ, dB: this encoding's rounding and clipping alone.
        elements: that were compared.
    """

    tensor: str
    node: str
    op: str
    type: str
    low: float
    high: float
    least: float
    greatest: float
    clipped: float
    sqnr_db: float
    own_sqnr_db: float
    elements: int


@dataclass(frozen=True, kw_only=True)
class TensorHistogram:
    """The distribution of one tensor of the float model.

    Attributes:
        tensor: its name.
        low, high: the range that was chosen, as in `LayerAccuracy`.
        edges: of the bars, ascending, one more than counts, unit of the tensor.
        counts: elements in each bar.
        source: "calibration" (all its samples) or "samples" (those of this comparison).
    """

    tensor: str
    low: float
    high: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What `layers` found.

    Attributes:
        samples: that were run.
        tensors: in the order of the float model's file.
        histograms: of the tensors with the lowest `own_sqnr_db`, the worst first.
        seconds: that it took.
        notes: sentences for the user.
    """

    samples: int
    tensors: tuple[LayerAccuracy, ...] = ()
    histograms: tuple[TensorHistogram, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Point:
    """A tensor of both files: `before` is what Q reads, `behind` what its DQ makes, or with a `scale` the integers."""

    before: str
    behind: str
    node: str
    op: str
    type: IntType
    low: float
    high: float
    scale: float = 0.0
    zero: int = 0


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    outside: int = 0
    elements: int = 0
    histogram: Histogram = field(default_factory=Histogram)


def layers(
    reference: Path, candidate: Path, samples: Sequence[Inputs], *, statistics: object = None, worst: int = WORST
) -> Layers:
    """Compare two files tensor by tensor.

    Args:
        reference: the float model.
        candidate: the same model with Q and DQ.
        samples: inputs by name, as both models take them; a few are enough.
        statistics: of the calibration, for histograms over all its samples; others (ranges, None) are not looked at.
        worst: histograms to keep.

    Raises:
        ModelError: one of the two cannot be read.
    """
    start = time.perf_counter()
    models = load(reference), load(candidate)
    points = list(_points(*(m.graph for m in models)))
    if not points or not samples:
        why = "no sample was given" if points else "no tensor of the float model stands before a Q/DQ pair in the file"
        return Layers(samples=len(samples), notes=(f"Layers were not compared: {why}.",))
    sums: dict[str, _Sums] = {}
    try:
        _run(models, points, samples, sums)
    except ModelError as error:  # a graph whose inner tensors cannot all be outputs is no reason to fail
        return Layers(samples=len(samples), notes=(f"Layers were not compared: {error}.",))
    found = tuple(_layer(p, s) for p in points if (s := sums.get(p.before)) is not None and s.elements)
    known = statistics.tensors if isinstance(statistics, Statistics) else {}
    lowest = sorted(found, key=lambda layer: layer.own_sqnr_db)[:worst]
    histograms = []
    for layer in lowest:
        calibrated = known[layer.tensor].observers.get(Histogram.name) if layer.tensor in known else None
        seen, source = (
            (calibrated, "calibration")
            if isinstance(calibrated, Histogram)
            else (sums[layer.tensor].histogram, "samples")
        )
        histograms.append(_histogram(layer, seen, source))
    return Layers(
        samples=len(samples),
        tensors=found,
        histograms=tuple(h for h in histograms if h.counts),
        seconds=time.perf_counter() - start,
    )


def _points(reference: gs.Graph, candidate: gs.Graph) -> Iterator[_Point]:
    """Quantized tensors that both have, in the order of the float model."""
    order = {name: position for position, name in enumerate(produced(reference))}
    makers = {t.name: node for node in reference.nodes for t in node.outputs}
    found: dict[str, _Point] = {}
    behind = {n.inputs[0].name: n for n in candidate.nodes if n.op == "DequantizeLinear" and n.inputs}
    for node in candidate.nodes:  # channels that were filled up
        if node.op == "Pad" and node.outputs[0].name in behind:
            behind.setdefault(node.inputs[0].name, behind[node.outputs[0].name])
    stacked = {n.inputs[0].name for n in candidate.nodes if n.op in ("Pad", "Reshape") and ROWS in n.name}
    for q in candidate.nodes:
        if q.op != "QuantizeLinear" or not q.outputs or isinstance(q.inputs[0], gs.Constant):
            continue
        name, levels, reach = q.inputs[0].name, q.outputs[0].name, _reach(q)
        if name not in order or name in found or reach is None:
            continue
        maker, dq = makers.get(name), behind.get(levels)
        node, op = (maker.name, maker.op) if maker is not None else ("", "input")
        if dq is not None:
            found[name] = _Point(name, dq.outputs[0].name, node, op, *reach)
        elif levels in stacked:  # what the DQ makes has each row several times
            scale, zero = (np.asarray(t.values).item() for t in q.inputs[1:3])
            found[name] = _Point(name, levels, node, op, *reach, scale, zero)
    yield from sorted(found.values(), key=lambda p: order[p.before])


def _reach(q: gs.Node) -> tuple[IntType, float, float] | None:
    """Type, least and greatest real number of a Q with constant parameters; of several channels the widest."""
    if len(q.inputs) < 3 or not all(isinstance(t, gs.Constant) for t in q.inputs[1:3]):
        return None
    scale, zero = (np.asarray(t.values) for t in q.inputs[1:3])
    name: IntType | None = next((known for known in LEVELS if known == zero.dtype.name), None)
    if name is None:
        return None
    low, high = ((level - zero.astype(np.float64)) * scale.astype(np.float64) for level in LEVELS[name])
    return name, float(low.min()), float(high.max())


def _run(
    models: tuple[Model, Model], points: Sequence[_Point], samples: Sequence[Inputs], sums: dict[str, _Sums]
) -> None:
    given = {t.name for t in models[0].graph.inputs}
    groups = [points[start : start + GROUP] for start in range(0, len(points), GROUP)]
    inner = [[p.before for p in group if p.before not in given] for group in groups]
    both = [[*names, *(p.behind for p in group)] for names, group in zip(inner, groups, strict=True)]
    exact, got = inner_values(models[0], inner, samples), inner_values(models[1], both, samples)
    for group in groups:
        for sample in samples:
            one, two = {**sample, **next(exact)}, {**sample, **next(got)}
            for point in group:
                values = (one[point.before], two[point.before], two[point.behind])
                _add(sums.setdefault(point.before, _Sums()), point, *(np.asarray(v) for v in values))


def _add(sums: _Sums, point: _Point, x: NDArray[Any], before: NDArray[Any], behind: NDArray[Any]) -> None:
    before, behind = _filled_from(before, x.shape), _filled_from(behind, x.shape)
    if x.dtype.kind != "f" or not x.shape == before.shape == behind.shape or not x.size:
        return
    a, b, c = (v.astype(np.float64).ravel() for v in (x, before, behind))
    if point.scale:
        c = (c - point.zero) * point.scale
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    if not finite.all():
        a, b, c = a[finite], b[finite], c[finite]
    if not a.size:
        return
    sums.signal += float(a @ a)
    sums.noise += float((a - c) @ (a - c))
    sums.own_signal += float(b @ b)
    sums.own_noise += float((b - c) @ (b - c))
    sums.least, sums.greatest = min(sums.least, float(a.min())), max(sums.greatest, float(a.max()))
    least, greatest = LEVELS[point.type]
    half = 0.5 * (point.high - point.low) / (greatest - least)
    sums.outside += int(((a < point.low - half) | (a > point.high + half)).sum())
    sums.elements += a.size
    sums.histogram.update(a.astype(np.float32))


def _filled_from(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Without the channels that `align-channels` and `pad-channels` add, which come last on axis 1."""
    return values[:, : shape[1]] if values.ndim == len(shape) > 1 and values.shape[1] > shape[1] else values


def _layer(point: _Point, sums: _Sums) -> LayerAccuracy:
    return LayerAccuracy(
        tensor=point.before,
        node=point.node,
        op=point.op,
        type=point.type,
        low=point.low,
        high=point.high,
        least=sums.least,
        greatest=sums.greatest,
        clipped=sums.outside / sums.elements,
        sqnr_db=decibels(sums.signal, sums.noise),
        own_sqnr_db=decibels(sums.own_signal, sums.own_noise),
        elements=sums.elements,
    )


def _histogram(layer: LayerAccuracy, seen: Histogram, source: str) -> TensorHistogram:
    """Bars of one width over all values and the chosen range; a narrow bin counts for the bar of its middle."""
    lower, upper, counts = seen.bins()
    edges: tuple[float, ...] = ()
    bars: tuple[int, ...] = ()
    if counts.size:
        ends = min(layer.low, float(lower[0])), max(layer.high, float(upper[-1]))
        numbers, borders = np.histogram((lower + upper) / 2, bins=BINS, range=ends, weights=counts)
        edges, bars = tuple(float(e) for e in borders), tuple(int(n) for n in numbers)
    return TensorHistogram(tensor=layer.tensor, low=layer.low, high=layer.high, edges=edges, counts=bars, source=source)
