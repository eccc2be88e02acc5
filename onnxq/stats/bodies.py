"""Statistics of tensors inside the bodies of If, Loop and Scan, carried out to the main graph.

Each body whose tensors are wanted has a state over them: least value, greatest value, a sum that is NaN if a value was,
elements seen, and for distributions a choice of the elements. The state is handed down from the main graph, where it is
neutral ("never reached" is a count of 0), to the body and up again, changed each time that the body runs:

1. If: the branch on the way to the body gives the changed state, the other one the state as it was.
2. Loop and Scan: the state travels along as further state of theirs; no iteration is kept.
3. Bodies in bodies: case by case, level by level.

The choice: all that a tensor held while one sample ran is one stream of elements, run after run of the body, and every
s-th of it is kept, s the least power of STEP that leaves room enough. When the stream outgrows the room, some of what
was kept goes. So the choice depends on the stream and on the sample's position alone, and takes the same memory for one
iteration and for a million. STEP is a prime that sizes of tensors seldom have as a factor: else the same channels would
be looked at again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir import walk
from onnxq.ir.model import Model
from onnxq.ir.walk import tensor_names, unique_name

ROOM = 1 << 16
"""Elements of a tensor that are kept of one sample, at most, whatever is asked for."""
STEP = 7
_POWERS = np.array([STEP**k for k in range(22)], dtype=np.int64)
_KINDS: Mapping[str, tuple[type, float]] = {
    "min": (np.float32, np.inf),
    "max": (np.float32, -np.inf),
    "sum": (np.float32, 0),
    "count": (np.int64, 0),
    "kept": (np.float32, 0),
}
"""Part of a state -> element type and neutral value. All are of shape [tensors], "kept" of [tensors, room]."""
_JOIN = {"min": "Min", "max": "Max", "sum": "Add", "count": "Add"}
_REDUCE = {"min": "ReduceMin", "max": "ReduceMax", "sum": "ReduceSum", "count": "Size"}
_FLOAT = 1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one tensor held in one run of the model, all runs of its body together.

    Attributes:
        low, high: least and greatest value.
        nan: there was one, or infinities of both signs.
        count: elements.
        elements: float32 [kept], a choice of them; None if none was asked for.
    """

    low: np.float32
    high: np.float32
    nan: bool
    count: int
    elements: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A model that tells of tensors in its bodies.

    Attributes:
        model: with more outputs on its control-flow nodes, and the input that `feed` feeds.
        groups: the tensors of each body, and part of its state -> output of the main graph.
        room: elements of a tensor that are kept; 0: none.
        place: name of the further input; "" if there is none.
    """

    model: Model
    groups: tuple[tuple[tuple[str, ...], Mapping[str, str]], ...] = ()
    room: int = 0
    place: str = ""

    @property
    def outputs(self) -> list[str]:
        """Names to fetch besides the taps."""
        return [name for _, parts in self.groups for name in parts.values()]

    def feed(self, place: int) -> dict[str, NDArray[Any]]:
        """What a run needs besides the inputs of the model.

        Args:
            place: where choices begin (any number >= 0), another one for each sample.
        """
        return {self.place: np.array([place], dtype=np.int64)} if self.place else {}

    def read(self, found: Mapping[str, NDArray[Any]], place: int) -> dict[str, Seen]:
        """Tensor -> what it held in one run, given the `place` that was fed; only what was reached."""
        out = {}
        for tensors, parts in self.groups:
            low, high, total, count = (found[parts[k]].reshape(-1) for k in _JOIN)
            for i, name in enumerate(tensors):
                if not count[i]:
                    continue
                elements = None
                if self.room:
                    number = kept(int(count[i]), self.room, place)
                    elements = found[parts["kept"]].reshape(len(tensors), self.room)[i, :number]
                out[name] = Seen(
                    low=low[i],
                    high=high[i],
                    nan=bool(np.isnan(total[i])),
                    count=int(count[i]),
                    elements=elements,
                )
        return out


def step(count: int, room: int) -> int:
    """Every how many-th of `count` elements is kept.

    >>> step(100, 100), step(101, 100), step(701, 100)
    (1, 7, 49)
    """
    return int(_POWERS[np.searchsorted(_POWERS, -(-count // room))])


def kept(count: int, room: int, place: int) -> int:
    """How many of `count` elements are kept: those at the places p with p % step = place % step.

    >>> kept(100, 100, 5), kept(101, 100, 0), kept(101, 100, 5)
    (100, 15, 14)
    """
    every = step(count, room)
    return -(-(count - place % every) // every)


def inside(model: Model, tensors: Collection[str], floats: Collection[str], pick: int | None = 0) -> Inside:
    """Let a model tell of tensors in its bodies.

    Args:
        model: not changed; the new one shares its arrays.
        tensors: names of any graph; those of the main graph are passed over.
        floats: names of all tensors known to be floating point; others are passed over.
        pick: elements of each tensor to give, at most; None is ROOM, 0 is none.
    """
    wanted = {n for n in tensors if n in floats}
    if not any(path and _own(g, wanted) for path, g in walk.graphs(model.graph)):
        return Inside(model=model)
    graph = walk.copy(model.graph)
    graph.import_domains, graph.functions = model.graph.import_domains, model.graph.functions
    graph.ir_version = model.graph.ir_version
    room = ROOM if pick is None else min(pick, ROOM)
    maker = _Maker(tensor_names(graph), room)
    groups = {path: own for path, g in walk.graphs(graph) if path and (own := _own(g, wanted))}
    start: list[gs.Node] = []
    states = {path: maker.neutral(start, own) for path, own in groups.items()}
    states = maker.below(graph, (), groups, states)
    graph.nodes = [*start, *graph.nodes]
    if maker.place is not None:
        graph.inputs = [*graph.inputs, maker.place]
    return Inside(
        model=replace(model, graph=graph),
        groups=tuple((own, {k: v.name for k, v in states[path].items()}) for path, own in groups.items()),
        room=room,
        place="" if maker.place is None else maker.place.name,
    )


_State = dict[str, Any]
"""Kind -> variable."""
_States = dict[walk.Path, _State]
_Groups = Mapping[walk.Path, tuple[str, ...]]
"""Where a body is -> the wanted tensors in it."""


class _Maker:
    def __init__(self, names: set[str], room: int) -> None:
        self.names, self.room = names, room
        self.kinds = list(_KINDS) if room else list(_JOIN)
        self.place = gs.Variable(self.new("place"), np.int64, [1]) if room else None

    def neutral(self, nodes: list[gs.Node], group: Sequence[str]) -> _State:
        """A state in which nothing was reached; appends nodes for the main graph."""
        state = self._variables("start", group)
        for kind, variable in state.items():
            dtype, value = _KINDS[kind]
            shape = self._integers("shape", *variable.shape)
            fill = gs.Constant(self.new("neutral"), np.array([value], dtype=dtype))
            nodes.append(gs.Node("ConstantOfShape", variable.name, {"value": fill}, [shape], [variable]))
        return state

    def below(self, graph: gs.Graph, path: walk.Path, groups: _Groups, states: _States) -> _States:
        """The states of all bodies below a graph when it has run, given those before."""
        after = dict(states)
        for index, node in enumerate(list(graph.nodes)):
            step = f"{node.name or f'{node.op}#{index}'}/"
            mine = {p: s for p, s in after.items() if len(p) > len(path) and p[len(path)].startswith(step)}
            mine = {p: s for p, s in mine.items() if p[len(path)].removeprefix(step) in node.attrs}
            if mine:
                through = self._if if node.op == "If" else self._loop
                after.update(through(node, path, step, groups, mine))
        return after

    def _body(self, body: gs.Graph, path: walk.Path, groups: _Groups, states: _States) -> _States:
        after = self.below(body, path, groups, states)
        if path in after:
            after[path] = self._update(body, groups[path], states[path])
        return after

    def _if(self, node: gs.Node, path: walk.Path, step: str, groups: _Groups, states: _States) -> _States:
        after = {p: self._variables("if", groups[p]) for p in states}
        for branch in ("then_branch", "else_branch"):
            body, here = node.attrs[branch], (*path, f"{step}{branch}")
            ways = {p: s for p, s in states.items() if p[: len(here)] == here}
            changed = self._body(body, here, groups, ways)
            for p, state in states.items():
                given = changed.get(p) or self._same(body, groups[p], state)
                body.outputs.extend(given[k] for k in self.kinds)
        for state in after.values():
            node.outputs.extend(state[k] for k in self.kinds)
        return after

    def _loop(self, node: gs.Node, path: walk.Path, step: str, groups: _Groups, states: _States) -> _States:
        body: gs.Graph = node.attrs["body"]
        if node.op == "Loop":  # inputs M, cond, states; body (i, cond, states) -> (cond, states, scans)
            own = len(node.inputs) - 2
            at_input, at_body_input, at_body_output, at_output = len(node.inputs), 2 + own, 1 + own, own
        else:  # inputs states, scans; body (states, slices) -> (states, scans)
            own = len(node.inputs) - int(node.attrs["num_scan_inputs"])
            at_input = at_body_input = at_body_output = at_output = own
        before = {p: self._variables("before", groups[p]) for p in states}
        after = {p: self._variables("loop", groups[p]) for p in states}
        changed = self._body(body, (*path, f"{step}body"), groups, before)
        _insert(node.inputs, at_input, self._flat(states))
        _insert(body.inputs, at_body_input, self._flat(before))
        _insert(body.outputs, at_body_output, self._flat({p: changed[p] for p in states}))
        _insert(node.outputs, at_output, self._flat(after))
        return after

    def _flat(self, states: _States) -> list[Any]:
        return [state[k] for state in states.values() for k in self.kinds]

    def _same(self, body: gs.Graph, group: Sequence[str], state: _State) -> _State:
        """A branch that gives a state as it was."""
        given = self._variables("same", group)
        for kind, variable in given.items():
            body.nodes.append(gs.Node("Identity", variable.name, {}, [gs.Variable(state[kind].name)], [variable]))
        return given

    def _update(self, body: gs.Graph, group: Sequence[str], before: _State) -> _State:
        """The state behind one run of a body."""
        emit = _Emit(body, self)
        one = self._integers("one", 1)
        parts: dict[str, list[gs.Variable]] = {k: [] for k in _JOIN}
        flats = []
        for name in group:
            single = emit("Cast", gs.Variable(name), to=_FLOAT)
            flats.append(single)
            for kind in _JOIN:
                attrs: dict[str, Any] = {} if kind == "count" else {"keepdims": 0}
                parts[kind].append(emit("Reshape", emit(_REDUCE[kind], single, **attrs), one))
        after = self._variables("after", group)
        for kind, op in _JOIN.items():
            whole = emit("Concat", *parts[kind], axis=0)
            emit(op, gs.Variable(before[kind].name), whole, into=after[kind])
        if self.room:
            self._choose(emit, flats, before, after)
        return after

    def _choose(self, emit: _Emit, tensors: list[gs.Variable], before: _State, after: _State) -> None:
        """What is kept behind one run of a body."""
        assert self.place is not None
        seen, place = gs.Variable(before["count"].name), gs.Variable(self.place.name)
        step, begin = self._steps(emit, seen, place)
        wider, start = self._steps(emit, gs.Variable(after["count"].name), place)
        one, nothing, end = (self._integers(*n) for n in (("one", 1), ("nothing", 0), ("end", np.iinfo(np.int64).max)))
        room, flat = self._integers("room", self.room), self._integers("flat", -1)
        # the stream goes on at `seen`: first place from there on that leaves `start` when divided by the wider step
        ahead = emit("Sub", emit("Add", start, wider), emit("Mod", seen, wider))
        vectors = [
            emit("Div", emit("Sub", start, begin), step),  # of what was kept, which one is the first to stay
            emit("Div", emit("Sub", emit("Add", seen, emit("Sub", step, one)), begin), step),  # how many were kept
            emit("Div", wider, step),
            emit("Mod", ahead, wider),
            wider,
        ]
        empty = gs.Constant(self.new("empty"), np.zeros(self.room, dtype=np.float32))
        row = self._integers("row", 1, self.room)
        rows = []
        for i, tensor in enumerate(tensors):
            at = self._integers("at", i)
            first, number, thin, ahead_of, every = (emit("Gather", v, at, axis=0) for v in vectors)
            held = emit("Reshape", emit("Gather", gs.Variable(before["kept"].name), at, axis=0), flat)
            old = emit("Slice", held, first, number, nothing, thin)
            new = emit("Slice", emit("Reshape", tensor, flat), ahead_of, end, nothing, every)
            both = emit("Concat", old, new, empty, axis=0)
            rows.append(emit("Reshape", emit("Slice", both, nothing, room, nothing, one), row))
        emit("Concat", *rows, axis=0, into=after["kept"])

    def _steps(self, emit: _Emit, count: gs.Variable, place: gs.Variable) -> tuple[gs.Variable, gs.Variable]:
        """`step` of [tensors] counts of elements, and the place that the choice begins at."""
        less = self._integers("less", self.room - 1)
        least = emit("Div", emit("Add", count, less), self._integers("room", self.room))
        column = emit("Reshape", least, self._integers("column", -1, 1))
        powers = self._integers("powers", *_POWERS.tolist())
        below = emit("Cast", emit("Less", powers, column), to=_FLOAT)
        ones = gs.Constant(self.new("ones"), np.ones(_POWERS.size, dtype=np.float32))
        number = emit("Cast", emit("MatMul", below, ones), to=7)  # how many powers are too small
        step = emit("Gather", powers, number, axis=0)
        return step, emit("Mod", place, step)

    def _variables(self, label: str, group: Sequence[str]) -> _State:
        """New variables, typed: a body must say the types of what it takes and gives."""
        size = len(group)
        return {
            k: gs.Variable(
                self.new(f"{label}_{k}"), np.dtype(_KINDS[k][0]), (size, self.room) if k == "kept" else (size,)
            )
            for k in self.kinds
        }

    def _integers(self, label: str, *numbers: int) -> gs.Constant:
        return gs.Constant(self.new(label), np.array(numbers, dtype=np.int64))

    def new(self, base: str) -> str:
        return unique_name(self.names, f"onnxq_{base}")


@dataclass(frozen=True)
class _Emit:
    """`emit("Add", a, b)` appends a node to a graph and gives its output."""

    graph: gs.Graph
    maker: _Maker

    def __call__(self, op: str, *inputs: gs.Tensor, into: gs.Variable | None = None, **attrs: int) -> gs.Variable:
        output = into if into is not None else gs.Variable(self.maker.new(op.lower()))
        self.graph.nodes.append(gs.Node(op, output.name, attrs, list(inputs), [output]))
        return output if into is None else gs.Variable(output.name)


def _own(graph: gs.Graph, wanted: Collection[str]) -> tuple[str, ...]:
    """The wanted tensors that a body takes from its node or makes itself."""
    names = [t.name for t in graph.inputs] + [t.name for node in graph.nodes for t in node.outputs]
    return tuple(n for n in dict.fromkeys(names) if n in wanted)


def _insert(tensors: list[Any], place: int, more: list[Any]) -> None:
    """`tensors[place:place] = more`; without graphsurgeon's back references, which nobody reads in our copy."""
    list.__setitem__(tensors, slice(place, place), more)
