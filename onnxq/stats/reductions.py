"""Least and greatest values found inside the graph: nodes behind the taps, a few numbers per sample come out.

How it is made cheap (shares of a plain run, see docs/calibration.md):

* Nothing is fetched but one vector per kind of number, and ONNX Runtime's optimizations stay on.
* The nodes stand in the file in the reverse order of the taps: in file order ONNX Runtime would run them all at the end
  and keep every tensor until then.
* GlobalMaxPool instead of ReduceMax where the least value is known to be 0: it reads the blocked layout of the
  convolutions as it is. The least value of the output of a Relu, or of a Clip from 0, is not measured: 0 stands for it.
* No node at all for a tensor that follows from others: Concat, and Relu and Clip of a tapped tensor.
* Sums, for NaN, only where a NaN could go unseen (`onnxq.stats.guards`).
* For distributions, every k-th element of a tensor (`onnxq.stats.picks.pace`) is sliced out inside the graph, so
  that a few thousand elements are fetched and not the tensor. Where the size cannot even be forecast
  (`onnxq.stats.forecasts`), and k with it, the tensor is fetched whole.
* Tails are counted exactly (`onnxq.stats.tails`): the greatest value is found row by row, and the rows with the
  greatest are fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.walk import tensor_names, unique_name
from onnxq.stats.forecasts import Forecast
from onnxq.stats.groups import REMEMBERED, Group, Groups
from onnxq.stats.guards import Shape, guards
from onnxq.stats.picks import WHOLE, coarse, picked_from, scattered
from onnxq.stats.stream import Found, Stream
from onnxq.stats.tails import row_length, tail_nodes
from onnxq.stats.taps import clip_to, from_zero

Known = tuple[np.dtype[Any] | None, Shape | None]
"""Element type and shape of a tensor as inference from the inputs gives them; None: unknown."""

Float32 = NDArray[np.float32]
_FLOAT = 1
"""TensorProto.FLOAT."""
_END = np.iinfo(np.int64).max
"""Slice: to the end."""

SPLIT_IS_INPUT = 13
"""Opset from which Split takes the sizes of its outputs as an input."""

SMALL = 4
"""Tensors of so many times the elements that are picked of others are counted whole."""

THIN = 16
"""Part of the elements that are picked which, where it is all that is known of a shape, promises a small tensor."""

BULK, FORETOLD = 2, 8
"""Of a tensor whose tails are counted exactly or cut off, this part of the elements is picked of what is of others; and
the second part where the size is a forecast: models that leave sizes open are small, and what is picked costs them most
(PP-OCR rec: with 4 instead of 8, 2 % of the instructions more, and no range nearer)."""


LOBES = frozenset({"Gelu", "QuickGelu", "FastGelu", "BiasGelu", "HardSwish", "Swish", "Mish", "Elu", "Celu", "Selu"})
"""Ops whose outputs have no lower tail: many lie close to the least value that there can be."""


class Reductions:
    """The nodes for some taps of a graph, and how to read what they give.

    Args:
        graph: sorted; not changed.
        taps: names of floating-point tensors that nodes of the main graph make.
        known: types and shapes, without those that the file merely claims.
        pick: elements of each tensor to give, too: None for none, else as `subset` of `Histogram`.
        forecasts: of taps whose shape `known` leaves open.

    Attributes:
        nodes: to append to the graph.
        inputs: further inputs that the graph gets, to be fed with `feed`.
        outputs: names to fetch.
    """

    def __init__(
        self,
        graph: gs.Graph,
        taps: Sequence[str],
        known: Mapping[str, Known],
        pick: int | None = None,
        forecasts: Mapping[str, Forecast] | None = None,
    ) -> None:
        self.taps = tuple(taps)
        self._forecasts = forecasts or {}
        self._first: dict[Forecast, str] = {}
        self._guessed = np.array([name in self._forecasts for name in self.taps], dtype=bool)
        self._pick = pick
        self._known = known
        self._names = tensor_names(graph)
        self._index = {name: i for i, name in enumerate(self.taps)}
        self._producer = {t.name: n for n in graph.nodes for t in n.outputs if t.name in self._index}
        self._derived = {n: how for n in self.taps if (how := self._derivation(n)) is not None}
        inputs = {t.name: known.get(t.name, (None, None))[1] for t in graph.inputs}
        self._given = {n: s for n, s in inputs.items() if s is not None}
        self._symbols = {d for s in self._given.values() for d in s if isinstance(d, str)}
        self._stream = Stream(self.taps)
        self._ranked: dict[str, str] = {}  # tap of known rank -> its shape
        self._unranked: dict[str, str] = {}
        self._starts, self._steps, self._tops = (self._new(label) for label in ("starts", "steps", "tops"))
        self._groups = Groups()
        self._new_of: dict[tuple[str, Group], str] = {}  # fed vector, group -> what it holds for this group
        self._opset = graph.opset
        self._sized: dict[object, tuple[tuple[tuple[int, ...], ...], NDArray[np.int64]]] = {}
        self._rows: dict[str, int] = {}  # tap whose tails are looked at -> length of its rows
        self._ones = {n: gs.Constant(self._new(f"integer_{n}"), np.array([n], dtype=np.int64)) for n in (-1, 0, _END)}
        self._whole = [t for t in self.taps if pick is not None and not self._is_sliced(t)]
        summed = set(guards(graph, self.taps, {n: s for n, (_, s) in known.items()}))
        parts = [self._of(name, summed) for name in self.taps]
        self.nodes = [node for part in reversed(parts) for node in part]
        asked = {vector for vector, _ in self._new_of}
        vectors = [n for n in (self._starts, self._steps, self._tops) if n in asked]
        self.nodes.extend(self._split(vector) for vector in vectors)
        self.inputs = [gs.Variable(n, np.int64, [len(self._groups)]) for n in vectors]
        self._group_of = np.array(self._groups.places(self.taps), dtype=np.int64)
        self._shape_vector = self._join("shapes", list(self._ranked.values())) if self._ranked else ""
        # One Concat for all, last in the file: ONNX Runtime orders its run from there, so that everything behind a tap
        # runs next to the op before it, while the tensor is in the cache, and then the tensor is freed. What leaves
        # through a second one runs at the end (measured on YOLOX, where a run takes 31 ms: distributions cost 13 ms
        # instead of 5).
        self._numbers = self._join("numbers", self._stream.tensors) if self._stream.tensors else ""
        self.outputs = [n for n in (self._shape_vector, *self._unranked.values(), self._numbers, *self._whole) if n]

    def read(
        self, inputs: Mapping[str, NDArray[Any]], found: Mapping[str, Any], position: int = 0, *, every: bool = False
    ) -> Found:
        """The numbers of one run.

        Args:
            inputs: of that run.
            found: output name -> array.
            position: that `feed` was given.
            every: count all elements of what was fetched whole, however many.
        """
        laid = self._groups.layout(self.symbols(inputs)).at(self._group_of) if self._pick is not None else None
        shapes, count = self._shapes(inputs, found)
        if laid is not None and self._forecasts:
            laid = replace(laid, sizes=np.where(self._guessed, count, laid.sizes))
        parts = self._stream.parts(found.get(self._numbers, np.empty(0, dtype=np.float32)), laid, position)
        if self._forecasts and not parts.fits():  # two shapes that were forecast as the same are not
            none = np.empty(0, dtype=np.float32)
            return Found(low=none, high=none, shapes=shapes, count=count, suspect=True, picked=[])
        values = parts.numbers()
        low, high = values["min"], values["max"]
        empty = count == 0
        if empty.any():
            low[empty], high[empty], values["sum"][empty] = np.inf, -np.inf, 0
        for name, derive in self._derived.items():
            i = self._index[name]
            if count[i]:
                low[i], high[i] = derive(low, high)
        finite = np.isfinite(low) & np.isfinite(high)
        suspect = bool(np.isnan(values["sum"]).any() or not (finite | empty).all())
        whole = {name: found[name] for name in self._whole}
        picked = [picked_from(whole, None if every else self._pick, position)] if whole else []
        if laid is not None:
            picked += parts.picked(laid)
        return Found(
            low=low,
            high=high,
            shapes=shapes,
            count=count,
            suspect=suspect,
            picked=picked,
        )

    def feed(self, inputs: Mapping[str, NDArray[Any]], position: int) -> dict[str, NDArray[Any]]:
        """What the run needs besides the inputs of the model: where the slices begin and their steps.

        Args:
            position: of the sample. Slices begin elsewhere in each one: else the same pixels of the same channels would
                be looked at in all of them.
        """
        if not self.inputs:
            return {}
        laid = self._groups.layout(self.symbols(inputs))
        fed = {self._starts: scattered(position) % laid.steps, self._steps: laid.steps, self._tops: laid.tops}
        return {tensor.name: fed[tensor.name][: len(self._groups)] for tensor in self.inputs}

    def _most(self, name: str) -> int:
        """Elements of a tap that are picked: all of a small tensor, fewer where tails are counted exactly or end in
        what a Clip cuts off."""
        pick = self._pick or 0
        bounds = clip_to(self._producer[name])
        if name in self._rows or (bounds is not None and all(map(math.isfinite, bounds)) and not self._small(name)):
            return max(1, pick // (FORETOLD if name in self._forecasts else BULK))
        return pick * SMALL if self._small(name) or self._thin(name) else pick

    def _small(self, name: str) -> bool:
        """Is a tap counted whole?"""
        # a batch of unknown size is most often 1
        sizes = [d if isinstance(d, int) else 1 if axis == 0 else WHOLE for axis, d in enumerate(self._shape(name))]
        return math.prod(sizes) <= (self._pick or 0) * SMALL

    def _thin(self, name: str) -> bool:
        """Will a tap whose size is forecast be small unless its open dimensions are large?"""
        known = math.prod(d for d in self._shape(name) if isinstance(d, int))
        return name in self._forecasts and known <= (self._pick or 0) // THIN

    def _shape(self, name: str) -> Shape:
        return self._known.get(name, (None, None))[1] or ()

    def symbols(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
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
        if not self._predictable(shape) and self._asked(name) == name:
            flow = self._unranked if shape is None else self._ranked
            flow[name] = self._new(f"{name}_shape")
            out.append(self._node("Shape", [tensor], flow[name]))
        derived = name in self._derived
        picking = self._pick is not None and self._is_sliced(name)
        if derived and name not in summed and not picking:
            return out
        if dtype is None or dtype != np.float32:  # numpy takes None for float64
            tensor = gs.Variable(self._new(f"{name}_float"))
            out.append(gs.Node("Cast", tensor.name, {"to": _FLOAT}, [gs.Variable(name)], [tensor]))
        positive = from_zero(self._producer[name])
        kinds = [] if derived else ["max"] if positive else ["min", "max"]
        if name in summed:
            kinds.append("sum")
        if picking and shape is not None and (sides := self._sides(name, shape)):
            out.extend(self._ends(name, tensor, shape, sides))
            kinds = [kind for kind in kinds if kind not in sides]
        flat = gs.Variable(self._new(f"{name}_flat"))
        for kind in kinds:
            source = flat
            if kind == "max" and positive and shape and len(shape) == 4 and self._predictable(shape):
                pooled, source = (gs.Variable(self._new(f"{name}_pooled{what}")) for what in ("", "_flat"))
                out.append(gs.Node("GlobalMaxPool", pooled.name, {}, [tensor], [pooled]))
                out.append(gs.Node("Reshape", source.name, {}, [gs.Variable(pooled.name), self._ones[-1]], [source]))
            elif not any(node.name == flat.name for node in out):
                out.append(gs.Node("Reshape", flat.name, {}, [tensor, self._ones[-1]], [flat]))
            reduced = self._new(f"{name}_{kind}")
            op = {"min": "ReduceMin", "max": "ReduceMax", "sum": "ReduceSum"}[kind]
            out.append(self._node(op, [gs.Variable(source.name)], reduced, keepdims=1))
            self._stream.add([kind], self._index[name], reduced)
        if picking and shape is not None:
            out.extend(self._slice(name, tensor, shape, flat.name if any(n.name == flat.name for n in out) else ""))
        return out

    def _ends(self, name: str, tensor: gs.Variable, shape: Shape, sides: Sequence[str]) -> list[gs.Node]:
        """The tails of one tap."""
        length = self._rows[name] = row_length(shape)
        rows, cut = gs.Variable(self._new(f"{name}_rows")), np.array([-1, length], dtype=np.int64)
        out = [gs.Node("Reshape", rows.name, {}, [tensor, gs.Constant(self._new(f"{name}_cut"), cut)], [rows])]
        top, place = self._own(name, self._tops), self._index[name]
        nodes, ends, elements = tail_nodes(rows, sides, top, self._ones[-1], self._opset, name, self._new)
        for kind, tops in zip(sides, ends, strict=True):
            self._stream.add([f"tops_{kind}"], place, tops)
        self._stream.add([f"rows_{kind}" for kind in sides], place, elements)
        out.extend(nodes)
        return out

    def _sides(self, name: str, shape: Shape) -> list[str]:
        """The tails of a tap that are counted exactly."""
        positive = from_zero(self._producer[name])
        # with sides that are not known, nothing can be picked from the blocked layout: then rows cost nothing more
        picture = positive and len(shape) == 4 and name not in self._forecasts
        if self._small(name) or self._thin(name) or self._pick == WHOLE or picture or not row_length(shape):
            return []
        return ["max"] if positive or self._producer[name].op in LOBES else ["min", "max"]

    def _slice(self, name: str, tensor: gs.Variable, shape: Shape, flat: str) -> list[gs.Node]:
        """Every k-th element of a tensor, [n]; of a large picture, of every s-th row and column.

        Args:
            flat: the tensor as a vector; empty if there is none yet.
        """
        nodes: list[gs.Node] = []
        flat_of = tensor.name if flat else ""
        if name not in self._rows and (step := coarse(shape, self._most(name))) > 1:
            # pooling reads the blocked layout of convolutions as it is, so that only what it picks is brought in order
            some = gs.Variable(self._new(f"{name}_coarse"))
            attrs = {"kernel_shape": [1, 1], "strides": [step, step]}
            nodes.append(gs.Node("MaxPool", some.name, attrs, [tensor], [some]))
            tensor, shape = some, (*shape[:2], *(-(-d // step) for d in shape[2:] if isinstance(d, int)))
        self._groups.add(name, self._group(name), shape)
        if tensor.name != flat_of:
            flat = self._new(f"{name}_all")
            nodes.append(gs.Node("Reshape", flat, {}, [tensor, self._ones[-1]], [gs.Variable(flat)]))
        sizes = [d for d in shape if isinstance(d, int)]
        picked = flat
        if len(sizes) < len(shape) or math.prod(sizes) > self._most(name):
            picked = self._new(f"{name}_elements")
            begin, step_by = self._own(name, self._starts), self._own(name, self._steps)
            nodes.append(
                self._node("Slice", [gs.Variable(flat), begin, self._ones[_END], self._ones[0], step_by], picked)
            )
        self._stream.add(["picked"], self._index[name], picked)
        return nodes

    def _own(self, name: str, vector: str) -> gs.Variable:
        """What a fed vector holds for this tap and those like it, [1]."""
        place = vector, self._group(name)
        if place not in self._new_of:
            self._new_of[place] = self._new(f"{name}_{vector}")
        return gs.Variable(self._new_of[place])

    def _group(self, name: str) -> Group:
        return Group(self._shape(name), self._forecasts.get(name), self._rows.get(name, 0), self._most(name))

    def _split(self, vector: str) -> gs.Node:
        """A fed vector, cut into what it holds for each group: one node, and not a Slice for each."""
        names = [self._new_of.get((vector, group)) or self._new("unused") for group in self._groups.groups]
        ones = np.ones(len(names), dtype=np.int64)
        inputs: list[gs.Tensor] = [gs.Variable(vector)]
        attrs: dict[str, Any] = {"axis": 0}
        if self._opset >= SPLIT_IS_INPUT:
            inputs.append(gs.Constant(self._new(f"{vector}_sizes"), ones))
        else:
            attrs["split"] = ones.tolist()
        return gs.Node("Split", f"{vector}_split", attrs, inputs, [gs.Variable(name) for name in names])

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

    def _asked(self, name: str) -> str:
        """Whose shape is fetched for that of a tap: of the first of the same forecast. `read` sees if they differ."""
        forecast = self._forecasts.get(name)
        return name if forecast is None else self._first.setdefault(forecast, name)

    def _is_sliced(self, name: str) -> bool:
        """Is the size of a tap known before the run, or nearly?"""
        return name in self._forecasts or self._predictable(self._known.get(name, (None, None))[1])

    def _shapes(
        self, inputs: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
    ) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.int64]]:
        """Shapes and elements of the taps; most often known from a sample before."""
        symbols = self.symbols(inputs)
        vector = found[self._shape_vector] if self._ranked else np.empty(0, dtype=np.int64)
        loose = [found[n] for n in self._unranked.values()]
        key = (*symbols.items(), *map(len, loose)), b"".join(array.tobytes() for array in (vector, *loose))
        if key not in self._sized:
            if len(self._sized) >= REMEMBERED:
                self._sized.clear()
            sizes: list[int] = vector.tolist()
            out: list[tuple[int, ...]] = []
            for name in self.taps:
                shape = self._known.get(name, (None, None))[1] or ()
                if self._asked(name) != name:
                    out.append(out[self._index[self._asked(name)]])
                elif name in self._unranked:
                    out.append(tuple(found[self._unranked[name]].tolist()))
                elif name in self._ranked:
                    out.append(tuple(sizes[: len(shape)]))
                    del sizes[: len(shape)]
                else:
                    out.append(tuple(d if isinstance(d, int) else symbols[str(d)] for d in shape))
            self._sized[key] = tuple(out), np.array([math.prod(s) for s in out], dtype=np.int64)
        return self._sized[key]

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
