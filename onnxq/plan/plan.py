"""The plan: which use of which tensor gets which encoding, and why each op is int8 or float. A value; it edits
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import FLOAT, Affine, Encoding, Kind, PerChannel
from onnxq.optable import GATED

GraphPath = tuple[str, ...]


@dataclass(frozen=True, order=True)
class Use:
    """One input slot of one node: `path` is () in the main graph, `slot` counts from 0."""

    path: GraphPath
    node: str
    slot: int


@dataclass(frozen=True, order=True)
class Value:
    """A tensor in a graph that produces it (a node output, a graph input) or, if it is a body, takes it from around."""

    path: GraphPath
    tensor: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of one op.

    Attributes:
        op: operator type.
        integer: True if the plan puts it into integer kernels.
        reason: why it stays float; empty for integer ops.
        heavy: it has multiply-accumulates (Conv, ConvTranspose, Gemm, MatMul, recurrent ops).
        kind: it is float at its borders only.
    """

    op: str
    integer: bool
    reason: str = ""
    heavy: bool = False
    kind: Kind | None = None


MEASURED = "measured here"
"""How the reason of an op begins that is float because it is faster so."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What measured costs say about ops that could be integer.

    Attributes:
        integer: names of nodes to run in int8, even where a rule of thumb speaks against it.
        floats: node -> why it stays float.
        eager: ops that move data go into int8, too, where all that read them do: Q stands as early as it can; and so do
            convolutions that a rule of thumb keeps float.
        kinds: node -> its kind, if it is not placed in int8.
        channel_multiple: channels of float convolutions are filled up to a multiple of this; 0: they are not.
    """

    integer: frozenset[str] = frozenset()
    floats: Mapping[str, str] = field(default_factory=dict)
    eager: bool = False
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    channel_multiple: int = 0


@dataclass(frozen=True, eq=False)
class Values:
    """An array that compares by its content, to the bit."""

    array: NDArray[np.float32]

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity."""
        return self.array.shape, self.array.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Encodings by use and by produced value, decisions by node.

    A use that is not in `uses` is float. A value in `values` gets one Q right behind its producer; uses of it whose
    encoding is equal read that
    Q's DQ. A use whose encoding differs from that of the value gets its own conversion. Constants have no entry in
    `values`: each use quantizes them.

    A body of If, Loop or Scan has values of its own of what it takes from the graphs around it. Then the DQ stands in
    the body, and reads the integers of the value around if that has an equal encoding, else those of a Q in the body.
    A use in a body of a tensor that has no value there reads a DQ in the nearest graph around where it has one.

    Attributes:
        values: encoding of produced values (activations).
        uses: encoding of each quantized use.
        decisions: node name -> decision, all nodes of all graphs.
        biases: what a use reads instead of the float constant that the graph has there, in the main graph; the first
            slot behind the last input of a node is a bias that it does not have yet. `uses` says how it is quantized.
        singles: node -> why it computes in float32 where floats are float16.
        notes: sentences for the report (repairs made, reduced range and the like).
        kinds: node -> how it computes with integers between float borders; such a node has no quantized use.
        channel_multiple: as in `Placement`.
        alphas: of each integer GELU, which is x * sigmoid(alpha * x) then.
    """

    values: Mapping[Value, Affine]
    uses: Mapping[Use, Affine]
    decisions: Mapping[str, Decision]
    biases: Mapping[Use, Values] = field(default_factory=dict)
    singles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    channel_multiple: int = 0
    alphas: Mapping[str, float] = field(default_factory=dict)

    def use(self, path: GraphPath, node: str, slot: int) -> Encoding:
        """The encoding of one use."""
        return self.uses.get(Use(path, node, slot), FLOAT)

    @property
    def gates(self) -> frozenset[str]:
        """The ops of `onnxq.optable.GATED` that are integer; their uses are the same if they are float."""
        return frozenset(name for name, d in self.decisions.items() if d.integer and d.op in GATED)

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity of what would be written: plans with equal keys give equal models."""
        parts: tuple[Mapping[Any, Any], ...] = (self.values, self.uses, self.biases, self.kinds, self.alphas)
        return *(frozenset(part.items()) for part in parts), self.gates, self.channel_multiple

    def to_json(self) -> str:
        """Readable, diffable, deterministic form."""
        return json.dumps(
            {
                "version": 1,
                "values": [
                    {"path": list(v.path), "tensor": v.tensor, **_affine(e)} for v, e in sorted(self.values.items())
                ],
                "uses": [
                    {"path": list(u.path), "node": u.node, "slot": u.slot, **_affine(e)}
                    for u, e in sorted(self.uses.items())
                ],
                "decisions": {
                    n: {"op": d.op, "integer": d.integer, "reason": d.reason, "heavy": d.heavy}
                    for n, d in sorted(self.decisions.items())
                },
                **({"biases": [_values(u, v) for u, v in sorted(self.biases.items())]} if self.biases else {}),
                **({"kinds": dict(sorted(self.kinds.items()))} if self.kinds else {}),
                **({"singles": dict(sorted(self.singles.items()))} if self.singles else {}),
                **({"channel_multiple": self.channel_multiple} if self.channel_multiple else {}),
                **({"alphas": dict(sorted(self.alphas.items()))} if self.alphas else {}),
                "notes": list(self.notes),
            },
            indent=1,
        )


def _values(use: Use, values: Values) -> dict[str, Any]:
    # float32 read back from its repr is exact
    numbers = [float(v) for v in values.array.reshape(-1)]
    where = {"path": list(use.path), "node": use.node, "slot": use.slot}
    return {**where, "shape": list(values.array.shape), "values": numbers}


def _affine(encoding: Affine) -> dict[str, Any]:
    axis = encoding.granularity.axis if isinstance(encoding.granularity, PerChannel) else None
    # repr of a float32 read back as float32 is exact
    scale = [float(s) for s in np.atleast_1d(encoding.scale)]
    zero = [int(z) for z in np.atleast_1d(encoding.zero_point)]
    return {"type": encoding.type, "axis": axis, "scale": scale, "zero_point": zero}
