"""Least and greatest values found inside the graph: nodes behind the taps, a few numbers per sample come out.

How it is made cheap (shares of a plain run, see docs/calibration.md):

* Nothing is fetched but one vector per kind of number, and ONNX Runtime's optimizations stay on.
* The nodes stand in the file in the reverse order of the taps: in file order ONNX Runtime would run them all at the end
  and keep every tensor until then.
* GlobalMaxPool instead of ReduceMax where the least value is known to be 0: it reads the blocked layout of the
  convolutions as it is. The least value of the output of a Relu, or of a Clip from 0, is not measured: 0 stands for it.
* No node at all for a tensor that follows from others: Concat, and Relu and Clip of a tapped tensor.
* Sums, for NaN, only where a NaN could go unseen (`onnxq.stats.guards`).
* For distributions, every k-th element of a tensor (`onnxq.stats.observers.stride`) is sliced out inside the graph, so
  that a few thousand elements are fetched and not the tensor. Where the size cannot be told beforehand, and k with it,
  the tensor is fetched whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.walk import clip_bounds, tensor_names, unique_name
from onnxq.stats.guards import Shape, guards
from onnxq.stats.observers import stride

Known = tuple[np.dtype[Any] | None, Shape | None]
"""Element type and shape of a tensor as inference from the inputs gives them; None: unknown."""

Float32 = NDArray[np.float32]
_FLOAT = 1
"""TensorProto.FLOAT."""
_BITS = (1 << 64) - 1
_END = np.iinfo(np.int64).max
"""Slice: to the end."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run says of the taps, in their order.

    Attributes:
        low, high: float32 [taps]; of a tensor without elements +inf and -inf.
        shapes: of the tensors.
        count: int64 [taps], elements.
        suspect: NaN or an infinity is somewhere: which tensor has it, the arrays must say.
        picked: tap -> the elements that a histogram counts (any shape), if elements were asked for.
    """

    low: Float32
    high: Float32
    shapes: tuple[tuple[int, ...], ...]
    count: NDArray[np.int64]
    suspect: bool
    picked: Mapping[str, NDArray[Any]]


class Reductions:
    """The nodes for some taps of a graph, and how to read what they give.

    Args:
        graph: sorted; not changed.
        taps: names of floating-point tensors that nodes of the main graph make.
        known: types and shapes, without those that the file merely claims.
        pick: elements of each tensor to give, too: None for none, else as `subset` of `Histogram`.

    Attributes:
        nodes: to append to the graph.
        inputs: further inputs that the graph gets, to be fed with `feed`.
        outputs: names to fetch.
    """

    def __init__(
        self, graph: gs.Graph, taps: Sequence[str], known: Mapping[str, Known], pick: int | None = None
    ) -> None:
        self.taps = tuple(taps)
        self._pick = pick
        self._known = known
        self._names = tensor_names(graph)
        self._index = {name: i for i, name in enumerate(self.taps)}
        self._producer = {t.name: n for n in graph.nodes for t in n.outputs if t.name in self._index}
        self._derived = {n: how for n in self.taps if (how := self._derivation(n)) is not None}
        inputs = {t.name: known.get(t.name, (None, None))[1] for t in graph.inputs}
        self._given = {n: s for n, s in inputs.items() if s is not None}
        self._symbols = {d for s in self._given.values() for d in s if isinstance(d, str)}
        self._groups: dict[int, list[tuple[str, int, str]]] = {}  # rank -> (kind, tap, tensor)
        self._ranked: dict[str, str] = {}  # tap of known rank -> its shape
        self._unranked: dict[str, str] = {}
        self._starts, self._steps = self._new("starts"), self._new("steps")
        self._laid: tuple[dict[str, int], NDArray[np.int64], NDArray[np.int64]] | None = None  # symbols, sizes, steps
        self._slicing: dict[str, Shape] = {}  # what is sliced: the tensor, or every s-th row and column of it
        self._strided: dict[str, str] = {}  # tap whose size follows from the inputs -> its elements, [1, n]
        self._whole = [
            t for t in self.taps if pick is not None and not self._predictable(known.get(t, (None, None))[1])
        ]
        self._cached: tuple[bytes, tuple[tuple[int, ...], ...], NDArray[np.int64]] | None = None
        summed = set(guards(graph, self.taps, {n: s for n, (_, s) in known.items()}))
        parts = [self._of(name, summed) for name in self.taps]
        self.nodes = [node for part in reversed(parts) for node in part]
        self._elements = self._join("elements", list(self._strided.values()), axis=1) if self._strided else ""
        read = {tensor.name for node in self.nodes for tensor in node.inputs}
        vectors = [n for n in (self._starts, self._steps) if n in read]
        self.inputs = [gs.Variable(n, np.int64, [len(self.taps)]) for n in vectors]
        self._shape_vector = self._join("shapes", list(self._ranked.values())) if self._ranked else ""
        # One Concat for all kinds of a rank, the one with most members last: ONNX Runtime orders its run from there,
        # and a reduction runs next to the op before it, while its input is in the cache. Otherwise those of all taps
        # run at the end (measured on EfficientNet-Lite0: 1.4 instead of 1.1 times a plain run, and 20 MB more).
        self._vectors: list[tuple[list[tuple[str, int]], str]] = []
        for rank, members in sorted(self._groups.items(), key=lambda item: len(item[1])):
            whole = self._join(f"numbers_{rank}", [name for *_, name in members])
            self._vectors.append(([(kind, place) for kind, place, _ in members], whole))
        self.outputs = [n for n in (self._shape_vector, *self._unranked.values()) if n]
        self.outputs += [whole for _, whole in self._vectors]
        self.outputs += [n for n in (self._elements, *self._whole) if n]

    def read(self, inputs: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], position: int = 0) -> Found:
        """The numbers of one run.

        Args:
            inputs: of that run.
            found: output name -> array.
            position: that `feed` was given.
        """
        values = {kind: np.zeros(len(self.taps), dtype=np.float32) for kind in ("min", "max", "sum")}
        for members, name in self._vectors:
            for (kind, place), number in zip(members, found[name].reshape(-1), strict=True):
                values[kind][place] = number
        low, high = values["min"], values["max"]
        shapes, count = self._shapes(inputs, found)
        empty = count == 0
        if empty.any():
            low[empty], high[empty], values["sum"][empty] = np.inf, -np.inf, 0
        for name, derive in self._derived.items():
            i = self._index[name]
            if count[i]:
                low[i], high[i] = derive(low, high)
        finite = np.isfinite(low) & np.isfinite(high)
        suspect = bool(np.isnan(values["sum"]).any() or not (finite | empty).all())
        return Found(
            low=low,
            high=high,
            shapes=shapes,
            count=count,
            suspect=suspect,
            picked=self._picked(inputs, found, position),
        )

    def feed(self, inputs: Mapping[str, NDArray[Any]], position: int) -> dict[str, NDArray[Any]]:
        """What the run needs besides the inputs of the model: where the slices begin and their steps.

        Args:
            position: of the sample. Slices begin elsewhere in each one: else the same pixels of the same channels would
                be looked at in all of them.
        """
        if not self.inputs:
            return {}
        _, steps = self._layout(inputs)
        return {self._starts: scattered(position) % steps, self._steps: steps}

    def _layout(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Elements of what is sliced, and the steps, by tap [taps]; most often those of the sample before."""
        symbols = self._values(inputs)
        if self._laid is None or self._laid[0] != symbols:
            sizes, steps = np.zeros(len(self.taps), dtype=np.int64), np.ones(len(self.taps), dtype=np.int64)
            for name, shape in self._slicing.items():
                sizes[self._index[name]] = size = math.prod(d if isinstance(d, int) else symbols[str(d)] for d in shape)
                steps[self._index[name]] = stride(size, self._pick)
            self._laid = symbols, sizes, steps
        return self._laid[1:]

    def _picked(
        self, inputs: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], position: int
    ) -> dict[str, NDArray[Any]]:
        out = {name: found[name] for name in self._whole}
        if self._strided:
            sizes, steps = self._layout(inputs)
            counts = -(-(sizes - scattered(position) % steps) // steps)
            ends = np.cumsum(counts[[self._index[name] for name in self._strided]])
            out.update(zip(self._strided, np.split(found[self._elements][0], ends[:-1]), strict=True))
        return out

    def _values(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """The symbols in the shapes of the inputs, as these inputs have them."""
        symbols: dict[str, int] = {}
        for name, shape in self._given.items():
            if name in inputs:
                symbols.update((d, n) for d, n in zip(shape, inputs[name].shape, strict=False) if isinstance(d, str))
        return symbols

    def _of(self, name: str, summed: Collection[str]) -> list[gs.Node]:
        """The nodes of one tap."""
        dtype, shape = self._known.get(name, (None, None))
        out: list[gs.Node] = []
        # variables of the same names, not the tensors themselves: those would list the nodes among their consumers
        tensor = gs.Variable(name)
        if not self._predictable(shape):
            flow = self._unranked if shape is None else self._ranked
            flow[name] = self._new(f"{name}_shape")
            out.append(self._node("Shape", [tensor], flow[name]))
        derived = name in self._derived
        picking = self._pick is not None and self._predictable(shape)
        if derived and name not in summed and not picking:
            return out
        if dtype is None or dtype != np.float32:  # numpy takes None for float64
            tensor = gs.Variable(self._new(f"{name}_float"))
            out.append(gs.Node("Cast", tensor.name, {"to": _FLOAT}, [gs.Variable(name)], [tensor]))
        rank = len(shape) if shape else 0  # of unknown rank and rank 0: reshaped to [1]
        kinds = [] if derived else ["max"] if _from_zero(self._producer[name]) else ["min", "max"]
        if name in summed:
            kinds.append("sum")
        for kind in kinds:
            source = tensor
            if kind == "max" and "min" not in kinds and rank == 4 and self._predictable(shape):
                source = gs.Variable(self._new(f"{name}_pooled"))
                out.append(gs.Node("GlobalMaxPool", source.name, {}, [tensor], [source]))
            out.extend(self._reduce(kind, name, source, rank))
        if picking and shape is not None:
            out.extend(self._slice(name, tensor, shape))
        return out

    def _slice(self, name: str, tensor: gs.Variable, shape: Shape) -> list[gs.Node]:
        """Every k-th element of a tensor, [1, n]; of a large picture, of every s-th row and column."""
        nodes: list[gs.Node] = []
        if (step := coarse(shape, self._pick)) > 1:
            # pooling reads the blocked layout of convolutions as it is, so that only what it picks is brought in order
            some = gs.Variable(self._new(f"{name}_coarse"))
            attrs = {"kernel_shape": [1, 1], "strides": [step, step]}
            nodes.append(gs.Node("MaxPool", some.name, attrs, [tensor], [some]))
            tensor, shape = some, (*shape[:2], *(-(-d // step) for d in shape[2:] if isinstance(d, int)))
        self._slicing[name] = shape
        flat = self._strided[name] = self._new(f"{name}_flat")
        nodes.append(self._node("Flatten", [tensor], flat, axis=0))
        sizes = [d for d in shape if isinstance(d, int)]
        if len(sizes) == len(shape) and math.prod(sizes) <= (self._pick or 0):
            return nodes
        place = self._index[name]
        ends = [self._integers(f"{name}_{what}", at) for what, at in (("from", place), ("to", place + 1))]
        fed = [gs.Variable(self._new(f"{name}_{what}")) for what in ("begin", "step")]
        for vector, own in zip((self._starts, self._steps), fed, strict=True):
            nodes.append(self._node("Slice", [gs.Variable(vector), *ends], own.name))
        some = self._strided[name] = self._new(f"{name}_elements")
        end, axis = self._integers(f"{name}_end", _END), self._integers(f"{name}_axis", 1)
        nodes.append(self._node("Slice", [gs.Variable(flat), fed[0], end, axis, fed[1]], some))
        return nodes

    def _integers(self, label: str, number: int) -> gs.Constant:
        return gs.Constant(self._new(label), np.array([number], dtype=np.int64))

    def _reduce(self, kind: str, name: str, source: gs.Variable, rank: int) -> list[gs.Node]:
        op = {"min": "ReduceMin", "max": "ReduceMax", "sum": "ReduceSum"}[kind]
        reduced = self._new(f"{name}_{kind}")
        nodes = [self._node(op, [source], reduced, keepdims=int(rank > 0))]
        if rank == 0:
            flat = self._new(f"{name}_{kind}_flat")
            nodes.append(self._node("Reshape", [gs.Variable(reduced), self._integers(f"{name}_{kind}_one", 1)], flat))
            reduced = flat
        self._groups.setdefault(rank, []).append((kind, self._index[name], reduced))
        return nodes

    def _node(self, op: str, inputs: list[gs.Tensor], output: str, **attrs: int) -> gs.Node:
        return gs.Node(op, output, attrs, inputs, [gs.Variable(output)])

    def _new(self, base: str) -> str:
        return unique_name(self._names, f"onnxq_{base}")

    def _join(self, label: str, names: Sequence[str], axis: int = 0) -> str:
        whole = self._new(label)
        joined = [gs.Variable(name) for name in names]
        self.nodes.append(gs.Node("Concat", whole, {"axis": axis}, joined, [gs.Variable(whole)]))
        return whole

    def _predictable(self, shape: Shape | None) -> bool:
        """Does the shape follow from those of the inputs?"""
        return shape is not None and all(
            isinstance(d, int) or (isinstance(d, str) and d in self._symbols) for d in shape
        )

    def _shapes(
        self, inputs: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
    ) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.int64]]:
        """Shapes and elements of the taps; most often those of the sample before."""
        symbols = self._values(inputs)
        vector = found[self._shape_vector] if self._ranked else np.empty(0, dtype=np.int64)
        key = repr((symbols, [found[n].tolist() for n in self._unranked.values()])).encode() + vector.tobytes()
        if self._cached is None or self._cached[0] != key:
            sizes, out = vector.tolist(), []
            for name in self.taps:
                shape = self._known.get(name, (None, None))[1] or ()
                if name in self._unranked:
                    out.append(tuple(found[self._unranked[name]].tolist()))
                elif name in self._ranked:
                    out.append(tuple(sizes[: len(shape)]))
                    del sizes[: len(shape)]
                else:
                    out.append(tuple(d if isinstance(d, int) else symbols[str(d)] for d in shape))
            count = np.array([math.prod(s) for s in out], dtype=np.int64)
            self._cached = key, tuple(out), count
        return self._cached[1], self._cached[2]

    def _derivation(self, name: str) -> Callable[[Float32, Float32], tuple[Any, Any]] | None:
        """How the two numbers of a tap follow from those of taps before it; None if they don't."""
        node = self._producer[name]
        if node.domain not in (None, "", "ai.onnx") or self._known.get(name, (None, None))[0] != np.float32:
            return None
        places = [self._index[t.name] for t in node.inputs if t.name in self._index]
        if node.op == "Concat" and len(places) == len(node.inputs):
            return lambda low, high: (low[places].min(), high[places].max())
        bounds = clip_to(node)
        if bounds is not None and node.inputs[0].name in self._index:
            place, ends = places[0], np.array(bounds, dtype=np.float32)
            return lambda low, high: (np.clip(low[place], *ends), np.clip(high[place], *ends))
        return None


def scattered(position: int) -> int:
    """A number that looks drawn by lot, of 31 bits: splitmix64 (Steele, Lea, Flood 2014)."""
    value = (position + 1) * 0x9E3779B97F4A7C15 & _BITS
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _BITS
    return (value ^ value >> 31) >> 33


def coarse(shape: Shape, pick: int | None) -> int:
    """Step over the rows and columns of pictures [N, C, H, W] that leaves at least `pick` elements of one.

    So that the first row and column do not weigh much more than the edges do, a third of the rows of a small picture
    stays, or 8 of a large one.

    >>> coarse(("N", 32, 112, 112), 4096), coarse((1, 480, 14, 14), 4096), coarse((1, 480, 7, 7), 4096)
    (10, 3, 1)
    """
    channels, *sides = [d for d in shape[1:] if isinstance(d, int)] or [0]
    if len(shape) != 4 or len(sides) != 2 or pick is None:
        return 1
    short = min(sides)
    most = short // 8 if short >= 32 else 3 if short >= 12 else 1
    step = 1
    while step < most and channels * math.prod(-(-d // (step + 1)) for d in sides) >= pick:
        step += 1
    return step


def clip_to(node: gs.Node) -> tuple[float, float] | None:
    """The constant bounds of a Relu or Clip, infinite where there is none; None for other nodes."""
    if node.domain not in (None, "", "ai.onnx") or node.op not in ("Relu", "Clip"):
        return None
    if node.op == "Relu":
        return 0.0, np.inf
    bounds = clip_bounds(node)
    return bounds if bounds is not None and bounds[0] <= bounds[1] else None


def _from_zero(node: gs.Node) -> bool:
    """Is the output of this node at least 0, and 0 wherever it would be less?"""
    bounds = clip_to(node)
    return bounds is not None and bounds[0] == 0
