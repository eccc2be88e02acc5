"""What an instrumented model is: its switches, and what is fed to turn them on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import Affine
from onnxq.ir.model import Model
from onnxq.numerics import dequantize, quantize

ENABLE = "onnxq_enable"
"""The input that turns activations on: bool, one element per activation."""

Kind = Literal["activation", "weight", "bias"]


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One quantized tensor.

    Attributes:
        tensor: its name in the float model.
        kind: `bias` is a constant of 32 bits.
        node, op: what makes the activation, "" for an input of the model; what reads the constant first.
        units: the integer ops that make or read it, in the order of the graph; of a bias that a float Add reads, the op
            in front.
        encoding: of its first use.
        flag: position in the vector ENABLE; None for constants that no body reads.
        constants: (initializer of the instrumented model, encoding); empty for activations.
        follows: tensors that this one is moved from, with its encoding: where these are rounded, rounding it changes
            nothing, since every value lies on its grid already.
        position: in the list of nodes of the instrumented model's main graph, the first that depends on the switch.
    """

    tensor: str
    kind: Kind
    node: str
    op: str
    units: tuple[str, ...]
    encoding: Affine
    flag: int | None = None
    constants: tuple[tuple[str, Affine], ...] = ()
    follows: tuple[str, ...] = ()
    position: int = 0

    @property
    def type(self) -> str:
        """Of the integers."""
        return self.encoding.type


@dataclass(frozen=True, kw_only=True)
class Instrumented:
    """A model with switches.

    Attributes:
        model: ENABLE is a further input if there are activations.
        switches: in the order of the graph.
        outputs: what is measured -> where the instrumented model has it: the outputs of the float model by name, and
            what `heads` names.
        count: outputs of the float model, which come first.
        heads: output of the float model that a squashing op makes -> the tensor that this op reads.
    """

    model: Model
    switches: tuple[Switch, ...]
    outputs: Mapping[str, str]
    count: int
    heads: Mapping[str, str] = field(default_factory=dict)

    @property
    def own(self) -> tuple[str, ...]:
        """The outputs of the float model."""
        return tuple(self.outputs)[: self.count]

    @property
    def flags(self) -> int:
        """Length of ENABLE."""
        return sum(s.flag is not None for s in self.switches)

    def feed(self, on: Collection[int], rounded: Rounded) -> dict[str, NDArray[Any]]:
        """The inputs that turn switches on, all others off.

        Args:
            on: positions in `switches`.
        """
        fed: dict[str, NDArray[Any]] = {}
        if self.flags:
            fed[ENABLE] = np.zeros(self.flags, dtype=np.bool_)
        for index in on:
            switch = self.switches[index]
            if switch.flag is not None:
                fed[ENABLE][switch.flag] = True
            fed.update((name, rounded[name]) for name, _ in switch.constants)
        return fed


class Rounded:
    """The rounded values of the constants that have a switch, by initializer of the instrumented model.

    Args:
        keep: what was made once; else it is made at each look.
    """

    def __init__(self, instrumented: Instrumented, *, keep: bool) -> None:
        self._encodings = {name: e for switch in instrumented.switches for name, e in switch.constants}
        self._values = {
            t.name: t.values
            for node in instrumented.model.graph.nodes
            for t in node.inputs
            if isinstance(t, gs.Constant) and t.name in self._encodings
        }
        self._keep = keep
        self._kept: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._kept:
            return self._kept[name]
        encoding = self._encodings[name]
        found = dequantize(quantize(self._values[name], encoding), encoding)
        if self._keep:
            self._kept[name] = found
        return found
