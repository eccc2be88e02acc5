"""Running an instrumented model: what lies before the first switch that is on gives what it gives in float, so it is
run once per sample and not once per switch.

The list of nodes is cut in a few places. A run with switches on begins at the last cut before the first of them, and
takes the tensors that cross the cut from the float run. With optimizations off every kernel runs by itself, so this
changes no bit (a test compares). With `PARTS` parts of equal cost, a run per switch costs 1/2 + 1/(2 PARTS) of a whole
one on average.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.ir.part import part, reads
from onnxq.ir.save import runnable, weight_bytes
from onnxq.runtime.session import SIDE_BY_SIDE, Level, Session
from onnxq.sensitivity.switches import Instrumented, Rounded
from onnxq.stats.taps import with_outputs

PARTS = 4
"""Cuts, the one before everything included."""

CUT_BELOW = 256 << 20
"""Bytes of weights above which nothing is cut, since each part is a session that holds its own weights, and rounded
constants are made anew for each run."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Cut:
    """Before the node at `position`; `live` are the tensors that cross it."""

    position: int
    live: tuple[str, ...]


class Forward:
    """The instrumented model as sessions, made when they are needed.

    Args:
        instrumented: the model and its switches.
        threads: of ORT; None: the cores.
        parts: 1: whole runs only, as for models that are fed their state.
    """

    def __init__(self, instrumented: Instrumented, *, threads: int | None = None, parts: int = PARTS) -> None:
        self.instrumented, self._threads = instrumented, threads
        small = weight_bytes(instrumented.model) < CUT_BELOW
        self._rounded = Rounded(instrumented, keep=small)
        self._cuts = _cuts(instrumented, parts if small else 1)
        self._sessions: dict[int, Session] = {}
        self._inputs: Arrays = {}
        self._held: Arrays = {}
        self._off: dict[str, NDArray[Any]] = {}

    def off(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The float outputs of one sample, whose tensors at the cuts are held until the next sample."""
        live = dict.fromkeys(name for cut in self._cuts for name in cut.live)
        found = self._whole().run({**inputs, **self._feed(())}, [*self.instrumented.outputs.values(), *live])
        self._cuts = [cut for cut in self._cuts if all(isinstance(found[n], np.ndarray) for n in cut.live)]
        self._inputs, self._held = inputs, {name: found[name] for name in live}
        self._off = {name: found[at] for name, at in self.instrumented.outputs.items()}
        return dict(self._off)

    def on(self, switches: Collection[int]) -> dict[str, NDArray[Any]]:
        """The outputs of the last sample that `off` ran, with these switches on."""
        first = min((self.instrumented.switches[i].position for i in switches), default=0)
        cut = max((c for c in self._cuts if c.position <= first), key=lambda c: c.position)
        if not cut.position:
            return self.run(self._inputs, switches)
        session = self._part(cut)
        given = {**self._inputs, **self._held, **self._feed(switches)}
        takes = {*(s.name for s in session.inputs), *session.overridable}
        found = session.run({n: v for n, v in given.items() if n in takes}, session.outputs)
        return {name: found.get(at, self._off[name]) for name, at in self.instrumented.outputs.items()}

    def run(self, inputs: Arrays, switches: Collection[int]) -> dict[str, NDArray[Any]]:
        """A whole run of any sample, with these switches on."""
        outputs = self.instrumented.outputs
        found = self._whole().run({**inputs, **self._feed(switches)}, list(outputs.values()))
        return {name: found[at] for name, at in outputs.items()}

    def _feed(self, switches: Collection[int]) -> dict[str, NDArray[Any]]:
        return self.instrumented.feed(switches, self._rounded)

    def _whole(self) -> Session:
        if 0 not in self._sessions:
            live = dict.fromkeys(name for cut in self._cuts for name in cut.live)
            self._sessions[0] = self._open(with_outputs(self.instrumented.model, list(live)))
        return self._sessions[0]

    def _part(self, cut: _Cut) -> Session:
        if cut.position not in self._sessions:
            self._sessions[cut.position] = self._open(_behind(self.instrumented, cut, self._held))
        return self._sessions[cut.position]

    def _open(self, model: Any) -> Session:
        with runnable(model) as source:
            return Session(source, level=Level.OFF, threads=self._threads, prepacking=False, config=SIDE_BY_SIDE)


def _cuts(instrumented: Instrumented, parts: int) -> list[_Cut]:
    """The whole, and before each further part of the switches; a part begins with its first switch."""
    switches = instrumented.switches
    starts = sorted({switches[len(switches) * i // parts].position for i in range(1, parts)} if switches else ())
    nodes = instrumented.model.graph.nodes
    first = 1 if instrumented.flags else 0  # the vector's Split belongs to each part
    made = {t.name: i for i, node in enumerate(nodes) for t in node.outputs if i >= first}
    last = dict.fromkeys(made, -1)
    for i, node in enumerate(nodes):
        last.update((name, i) for name in reads(node) if name in last)
    return [
        _Cut(0, ()),
        *(_Cut(at, tuple(n for n, i in made.items() if i < at <= last[n])) for at in starts if at > first),
    ]


def _behind(instrumented: Instrumented, cut: _Cut, held: Arrays) -> Any:
    """The model behind a cut: what crosses it are inputs of unknown shape. Outputs made before it are left out."""
    graph = instrumented.model.graph
    nodes: Sequence[gs.Node] = [
        *(n for n in graph.nodes[:1] if instrumented.flags),
        *graph.nodes[cut.position :],
    ]
    made = {t.name for node in nodes for t in node.outputs}
    outputs = [t for t in graph.outputs if t.name in made]
    return part(instrumented.model, nodes, {name: held[name].dtype for name in cut.live}, outputs)
