"""Per channel what a tensor reaches: its least and greatest values and a few of its rows, taken inside the graph.

Constant memory: of each tensor two vectors and `ROWS` rows leave a run, whatever its size. Between runs at most
`KEPT` rows are kept; where there are more, every second sample is dropped, then every fourth ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import CalibrationError, ModelError
from onnxq.ir.model import Model
from onnxq.ir.save import runnable
from onnxq.ir.walk import tensor_names, unique_name
from onnxq.runtime.session import Session
from onnxq.stats.taps import with_outputs

Float32 = NDArray[np.float32]

ROWS = 8
"""Rows of each tensor that are fetched of one sample, evenly spread, in each sample at other places."""

KEPT = 512
"""Rows of each tensor that are kept."""

GOLDEN = 0.6180339887498949
"""Its multiples, modulo 1, spread evenly: where the rows of one sample begin."""

_AXES_ARE_INPUT = 18
"""Opset from which ReduceMax takes its axes as an input."""
_FLOAT, _INT64 = 1, 7
"""TensorProto.FLOAT, TensorProto.INT64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """What a tensor [..., K] reached over all samples.

    Attributes:
        low, high: of each channel, float32 [K].
        rows: some of it, float32 [at most KEPT, K].
    """

    low: Float32
    high: Float32
    rows: Float32

    @property
    def amax(self) -> Float32:
        """Greatest absolute value of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


@dataclass
class _Seen:
    low: Float32
    high: Float32
    rows: list[Float32] = field(default_factory=list)


def observe_channels(
    model: Model,
    tensors: Mapping[str, int],
    samples: Iterable[Mapping[str, NDArray[Any]]],
    *,
    threads: int | None = None,
) -> dict[str, Channels]:
    """Run the model on the samples.

    Args:
        model: float; not changed.
        tensors: float tensors of the main graph -> size of their last axis.
        samples: inputs; read once.
        threads: of ONNX Runtime; None is its default.

    Raises:
        CalibrationError: no sample, one that ONNX Runtime cannot run, NaN or an infinity in one of the tensors.
        ModelError: ONNX Runtime cannot load the model.
    """
    if not tensors:
        return {}
    taps = _Taps(model.graph, tensors)
    with runnable(with_outputs(model, taps.outputs, taps.nodes, [taps.starts])) as source:
        session = Session(source, threads=threads, memory_pattern=False)
    seen = {n: _Seen(np.full(k, np.inf, np.float32), np.full(k, -np.inf, np.float32)) for n, k in tensors.items()}
    step, count = 1, 0
    for index, inputs in enumerate(samples):
        start = (index * GOLDEN) % 1
        places = np.asarray((np.arange(ROWS) + start) / ROWS, dtype=np.float32)
        try:
            found = session.run({**inputs, taps.starts.name: places}, taps.outputs)
        except ModelError as error:
            raise CalibrationError(f"sample {index}: {error}") from error
        for (name, one), (low, high, rows) in zip(seen.items(), taps.parts, strict=True):
            if not (np.isfinite(found[low]).all() and np.isfinite(found[high]).all()):
                raise CalibrationError(f'sample {index}: the tensor "{name}" holds NaN or an infinity')
            np.minimum(one.low, found[low], out=one.low)
            np.maximum(one.high, found[high], out=one.high)
            if index % step == 0:
                one.rows.append(found[rows])
        if index % step == 0 and len(next(iter(seen.values())).rows) * ROWS > KEPT:
            step *= 2
            for one in seen.values():
                one.rows = one.rows[::2]
        count += 1
    if not count:
        raise CalibrationError("there are no samples to observe channels on: give at least one")
    return {name: Channels(low=s.low, high=s.high, rows=np.concatenate(s.rows)) for name, s in seen.items()}


class _Taps:
    """The nodes behind each tensor.

    Attributes:
        nodes: to append; those of the last tensor first, so that ONNX Runtime runs each next to what it reads.
        starts: a further input: which rows are fetched, float32 [ROWS] from 0 to 1.
        parts: names of least values, greatest values and rows, for each tensor.
        outputs: all of them.
    """

    def __init__(self, graph: gs.Graph, tensors: Mapping[str, int]) -> None:
        self._names = tensor_names(graph)
        self._opset = graph.opset
        self._zero = self._constant("zero", np.array([0], np.int64))
        self.starts = gs.Variable(unique_name(self._names, "onnxq_rows"), np.float32, [ROWS])
        self.parts: list[tuple[str, str, str]] = []
        nodes: list[list[gs.Node]] = []
        for name, size in tensors.items():
            made: list[gs.Node] = []
            # variables of the same names, not the tensors themselves: those would list the nodes among their readers
            flat = self._add(made, "Reshape", name, gs.Variable(name), self._constant(name, np.array([-1, size])))
            low, high = (self._reduce(made, op, name, flat) for op in ("ReduceMin", "ReduceMax"))
            size_of = self._add(made, "Shape", name, flat)
            length = self._add(made, "Gather", name, size_of, self._zero)
            real = self._add(made, "Cast", name, length, to=_FLOAT)
            place = self._add(made, "Cast", name, self._add(made, "Mul", name, real, self.starts), to=_INT64)
            rows = self._add(made, "Gather", name, flat, place)
            self.parts.append((low.name, high.name, rows.name))
            nodes.append(made)
        self.nodes = [node for made in reversed(nodes) for node in made]
        self.outputs = [name for part in self.parts for name in part]

    def _constant(self, name: str, values: NDArray[np.int64]) -> gs.Constant:
        return gs.Constant(unique_name(self._names, f"{name}_constant"), np.asarray(values, np.int64))

    def _add(self, made: list[gs.Node], op: str, name: str, *inputs: gs.Tensor, **attrs: Any) -> gs.Variable:
        out = gs.Variable(unique_name(self._names, f"{name}_{op}"))
        made.append(gs.Node(op, out.name, attrs, list(inputs), [out]))
        return out

    def _reduce(self, made: list[gs.Node], op: str, name: str, flat: gs.Variable) -> gs.Variable:
        if self._opset < _AXES_ARE_INPUT:
            return self._add(made, op, name, flat, axes=[0], keepdims=0)
        return self._add(made, op, name, flat, self._zero, keepdims=0)
