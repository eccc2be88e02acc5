"""What the ONNX operator schemas say of element types."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import defs

_SINGLE, _HALF = "tensor(float)", "tensor(float16)"


@dataclass(frozen=True)
class Slot:
    """An input or output of an operator.

    Attributes:
        kind: name of its type variable, or its type.
        single, half: it may hold float32, float16.
    """

    kind: str
    single: bool
    half: bool


@dataclass(frozen=True)
class Signature:
    """Types of an operator; the last slot of each side stands for all further ones if it is variadic."""

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]

    def input(self, index: int) -> Slot:
        """Of one input."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def output(self, index: int) -> Slot:
        """Of one output."""
        return self.outputs[min(index, len(self.outputs) - 1)]


def standard_schema(op: str, opset: int) -> defs.OpSchema | None:
    """Of an operator of the standard domain; None if that opset has none of this name, or one that was withdrawn."""
    try:
        schema = defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return None
    return None if schema.deprecated else schema


@functools.lru_cache(maxsize=1024)
def signature(op: str, opset: int) -> Signature | None:
    """Types of an operator, as `standard_schema` finds it."""
    schema = standard_schema(op, opset)
    if schema is None:
        return None
    kinds = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}

    def slot(name: str) -> Slot:
        allowed = kinds.get(name, frozenset({name}))
        return Slot(kind=name, single=_SINGLE in allowed, half=_HALF in allowed)

    return Signature(
        inputs=tuple(slot(i.type_str) for i in schema.inputs), outputs=tuple(slot(o.type_str) for o in schema.outputs)
    )


def types(graph: gs.Graph) -> dict[str, Any]:
    """The element types of the variables of the main graph, declared or by the type variables of what makes them; None
    where neither says it."""
    kinds: dict[str, Any] = {t.name: t.dtype for t in graph.inputs}
    for node in graph.nodes:
        found = signature(node.op, graph.opset) if node.domain in (None, "", "ai.onnx") else None
        known: dict[str, Any] = {}
        if found is not None and found.inputs and found.outputs:
            given = [t.dtype if isinstance(t, gs.Constant) else kinds.get(t.name) for t in node.inputs]
            known = {found.input(i).kind: kind for i, kind in enumerate(given) if kind is not None}
        for index, tensor in enumerate(node.outputs):
            kind = tensor.dtype
            if kind is None and found is not None and found.outputs:
                kind = known.get(found.output(index).kind)
            kinds[tensor.name] = kind
    return kinds


def singles(graph: gs.Graph) -> list[str]:
    """The variables of the main graph that hold float32."""
    return [name for name, kind in types(graph).items() if name and _is_single(kind)]


def _is_single(kind: Any) -> bool:
    try:
        return kind is not None and bool(np.dtype(kind) == np.float32)
    except TypeError:  # a type that numpy does not have
        return False
