"""What a measured time belongs to: a kernel with all that changes its work."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.ir import walk
from onnxq.runtime.events import ABSENT
from onnxq.runtime.observe import NodeRun
from onnxq.runtime.profile import KernelRun
from onnxq.validate.macs import macs

Value = int | str | tuple[int, ...] | tuple[str, ...]
"""Of an attribute. Floats (epsilon, alpha) change results and no work, so they don't count; nor do tensors."""

_IDLE = frozenset(
    {"auto_pad", "saturate", "output_dtype", "block_size", "allowzero", "noop_with_empty_axes", "stash_type"}
)
"""Attributes that change no work, and that come and go with the version of the operator set."""

_DEFAULTS: dict[str, Value] = {
    "group": 1,
    "transA": 0,
    "transB": 0,
    "transBatchA": 0,
    "transBatchB": 0,
    "channels_last": 0,
}

_OPERAND = re.compile(r"(=?)([a-z][a-z0-9_]*)\[((?:\d+(?:,\d+)*)?)\]")


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that goes into a kernel or comes out.

    Attributes:
        dtype: as ORT writes it: "float", "uint8", "int64"; "" if the optional tensor is left out.
        constant: known before the run, so that ORT may pack it.

    >>> str(Operand(dtype="float", shape=(8, 3), constant=True)), str(Operand(dtype="uint8", shape=()))
    ('=float[8,3]', 'uint8[]')
    """

    dtype: str
    shape: tuple[int, ...] = ()
    constant: bool = False

    @property
    def size(self) -> int:
        """Elements; 0 if it is left out."""
        return math.prod(self.shape) if self.dtype else 0

    def __str__(self) -> str:
        """The form in files."""
        if not self.dtype:
            return "-"
        return f"{'=' if self.constant else ''}{self.dtype}[{','.join(map(str, self.shape))}]"

    @classmethod
    def parse(cls, text: str) -> Operand:
        """From the form in files.

        Raises:
            ValueError: it has another form.

        >>> Operand.parse("=float[8,3]").shape
        (8, 3)
        """
        if text == "-":
            return cls(dtype="")
        match = _OPERAND.fullmatch(text)
        if match is None:
            raise ValueError(f'"{text}" is no tensor: write float[1,3], =float[3] for a constant, - for none')
        constant, dtype, shape = match.groups()
        return cls(dtype=dtype, shape=tuple(int(d) for d in shape.split(",")) if shape else (), constant=bool(constant))


@dataclass(frozen=True, kw_only=True)
class CostKey:
    """A kernel and its work.

    Attributes:
        op: type with domain, "Conv" or "com.microsoft.nchwc.Conv".
        inputs, outputs: one per slot; those left out at the end are not there.
        attributes: by name, sorted: integers, texts and lists of them.
        threads: intra-op.
    """

    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attributes: tuple[tuple[str, Value], ...] = ()
    threads: int = 1

    @property
    def kind(self) -> str:
        """The op without its domain."""
        return self.op.rpartition(".")[2]

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Element types of the inputs and the first output."""
        return (*(o.dtype for o in self.inputs), "->", *(o.dtype for o in self.outputs[:1]))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates; 0 of an op that is not known to have any."""
        present = [o for o in self.inputs if o.dtype]
        tensors = [gs.Variable(f"i{i}" if o.dtype else "") for i, o in enumerate(self.inputs)]
        node = gs.Node(self.kind, "n", dict(self.attributes), tensors, [])
        run = NodeRun(tuple(o.shape for o in present), tuple(o.shape for o in self.outputs if o.dtype))
        return macs(node, [run]) or 0

    @cached_property
    def elements(self) -> int:
        """Of the largest tensor that is not constant."""
        return max((o.size for o in (*self.inputs, *self.outputs) if not o.constant), default=0)

    @cached_property
    def work(self) -> int:
        """What the time grows with: multiply-accumulates; of pools the elements of all windows; else `elements`."""
        window = dict(self.attributes).get("kernel_shape")
        if not self.macs and isinstance(window, tuple) and self.outputs:
            return self.outputs[0].size * math.prod(int(side) for side in window)
        return self.macs or self.elements

    def __str__(self) -> str:
        """One line, as `onnxq costs show` prints it."""
        more = "".join(f" {name}={_plain(value)}" for name, value in self.attributes)
        inputs, outputs = (" ".join(map(str, operands)) for operands in (self.inputs, self.outputs))
        return f"{self.op}({inputs}) -> {outputs}{more}"


def _plain(value: Value) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def attributes_of(node: gs.Node) -> tuple[tuple[str, Value], ...]:
    """The attributes of a node that count: without those that say the default, or a size that the shapes tell."""
    found: list[tuple[str, Value]] = []
    whole = node.op in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 1 and not node.inputs[1].shape
    for name, value in sorted(node.attrs.items()):
        if isinstance(value, gs.Tensor | gs.Graph):  # of ConstantOfShape or If: no setting, and its == reads names
            continue
        if name in _IDLE or value == _DEFAULTS.get(name) or (name == "axis" and whole):
            continue
        if name in ("dilations", "strides") and set(value) == {1}:
            continue
        if isinstance(value, int | str) and not isinstance(value, bool):
            found.append((name, value))
        elif isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
            found.append((name, tuple(int(v) for v in value)))
        elif isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            found.append((name, tuple(str(v) for v in value)))
    return tuple(found)


def key_of(kernel: KernelRun, node: gs.Node, *, threads: int) -> CostKey:
    """The key of a kernel of a profile; `node` is the one of its name in the profile's graph."""
    constants = [walk.constant_array(t) is not None for t in node.inputs]
    inputs = [
        Operand(dtype=dtype, shape=shape, constant=constant)
        for (dtype, shape), constant in zip(kernel.inputs, constants, strict=True)
    ]
    return CostKey(
        op=kernel.op,
        inputs=_trimmed(inputs),
        outputs=_trimmed([Operand(dtype=dtype, shape=shape) for dtype, shape in kernel.outputs]),
        attributes=attributes_of(node),
        threads=threads,
    )


def _trimmed(operands: Sequence[Operand]) -> tuple[Operand, ...]:
    left: list[Operand] = list(operands)
    while left and left[-1].dtype == ABSENT[0]:
        left.pop()
    return tuple(left)


def as_plain(value: Value) -> Any:
    """An attribute for JSON."""
    return list(value) if isinstance(value, tuple) else value
