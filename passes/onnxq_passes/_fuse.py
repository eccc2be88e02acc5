"""What the fuse passes share: dequantized operands, the quantized output, and the exchange of all of it for one op.

A fusion reads integers where a DequantizeLinear stood, writes integers where a QuantizeLinear stood, and takes scales
and zero points from both. `CannotFuseError` carries the reason why a node stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.encoding import LEVELS, IntType
from onnxq.pipeline.base import Context, Pass, Report, Stage
from onnxq_passes._edit import Editor, input_at, scalar, standard
from onnxq_passes._qdq import Parameters, is_dq, is_q, parameters

MICROSOFT = "com.microsoft"
BYTES = ("uint8", "int8")


class CannotFuseError(Exception):
    """Why a fusion was not made, in words for a user."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor between Q and DQ: `integers` stand for (integers - zero_point) * scale."""

    integers: gs.Tensor
    said: Parameters
    source: gs.Node

    @property
    def type(self) -> IntType:
        """`uint8`, `int8`, `int32`, ..."""
        return cast(IntType, self.said.dtype)

    @property
    def per_tensor(self) -> bool:
        """One scale for all."""
        return self.said.axis is None


@dataclass(frozen=True, kw_only=True)
class Outlet:
    """Where the result of an op becomes integers.

    Attributes:
        to: the integer tensor and its encoding; None if nobody reads the output.
        quantizers: the QuantizeLinear nodes, all with the encoding of `to`.
        skipped: activations in between that the range of the integers makes redundant.
    """

    to: Operand | None
    quantizers: tuple[gs.Node, ...] = ()
    skipped: tuple[gs.Node, ...] = ()


@dataclass
class Work:
    """The edits and the report of one pass, and the questions that all fusions ask."""

    editor: Editor
    report: Report = field(default_factory=Report)
    _constants: dict[tuple[object, ...], gs.Constant] = field(default_factory=dict)

    # questions

    def candidate(self, node: gs.Node) -> bool:
        """Does it read a dequantized tensor?"""
        return any(is_dq(p) for p in (self.editor.producer(t) for t in node.inputs) if p is not None)

    def operand(self, tensor: gs.Tensor, types: Sequence[str] = BYTES) -> Operand:
        """The integers behind a tensor that a DequantizeLinear writes.

        Raises:
            CannotFuseError: it is float, or its encoding has no integer kernel.
        """
        maker = self.editor.producer(tensor)
        if maker is None or not is_dq(maker):
            raise CannotFuseError(f"{tensor.name} is float")
        return encoded(maker, maker.inputs[0], types)

    def activation(self, tensor: gs.Tensor) -> Operand:
        """An operand with one scale.

        Raises:
            CannotFuseError: as `operand`; or it has a scale per channel.
        """
        found = self.operand(tensor)
        if not found.per_tensor:
            raise CannotFuseError(f"{tensor.name} has a scale per channel, integer kernels want one per activation")
        return found

    def outlet(
        self,
        node: gs.Node,
        slot: int = 0,
        *,
        skip: bool = True,
        types: Sequence[str] = BYTES,
        channels: bool = False,
    ) -> Outlet:
        """The quantized form of an output.

        Args:
            skip: look through a Relu or Clip that the saturation of the integers makes redundant.
            channels: take a scale per channel, too.

        Raises:
            CannotFuseError: the output is also needed in float, or in several encodings, or per channel.
        """
        tensor, skipped = node.outputs[slot], []
        if skip:
            use = self.editor.only_use(tensor)
            if use is not None and use[0].op in ("Relu", "Clip") and standard(use[0]) and use[1] == 0:
                skipped.append(use[0])
                tensor = use[0].outputs[0]
        if self.editor.is_output(tensor):
            raise CannotFuseError(f"its output {tensor.name} is an output of the graph in float")
        found: dict[int, tuple[gs.Node, Operand]] = {}
        for user, at in self.editor.uses(tensor):
            if not is_q(user) or at != 0:
                raise CannotFuseError(f"{user.name or user.op} reads its output in float")
            if self.editor.body(user) is not self.editor.body(node):
                raise CannotFuseError(f"{user.name} quantizes its output in another body")
            found[id(user)] = user, encoded(user, user.outputs[0], types)
        if not found:
            if skipped:
                raise CannotFuseError(f"nobody reads {tensor.name}")
            return Outlet(to=None)
        encodings = [e for _, e in found.values()]
        if len({e.said for e in encodings}) > 1:
            raise CannotFuseError("its output is quantized in several encodings")
        if not channels and not encodings[0].per_tensor:
            raise CannotFuseError("its output has a scale per channel, integer kernels write one scale")
        fixed = [e for e in encodings if self.editor.is_output(e.integers)]
        if len(fixed) > 1:
            raise CannotFuseError("its quantized output is an output of the graph twice")
        to = fixed[0] if fixed else encodings[0]
        for one in skipped:
            _check_redundant(one, to)
        return Outlet(to=to, quantizers=tuple(n for n, _ in found.values()), skipped=tuple(skipped))

    def quantized(self, node: gs.Node) -> tuple[Outlet, Operand]:
        """The quantized form of output 0, which must be there.

        Raises:
            CannotFuseError: it is not.
        """
        outlet = self.outlet(node)
        if outlet.to is None:
            raise CannotFuseError("nobody reads its output")
        return outlet, outlet.to

    # edits

    def scale(self, operand: Operand) -> gs.Tensor:
        """Its scale as the input of an integer op: rank 0, or [channels]."""
        return self._parameter(operand.source, 1, operand.said.scale, f"{operand.integers.name}_scale")

    def zero(self, operand: Operand) -> gs.Tensor:
        """Its zero point, written out where the file leaves it out."""
        return self._parameter(operand.source, 2, operand.said.zero_point, f"{operand.integers.name}_zero_point")

    def triple(self, operand: Operand) -> list[gs.Tensor]:
        """Integers, scale and zero point."""
        return [operand.integers, self.scale(operand), self.zero(operand)]

    def constant(self, name: str, values: NDArray[Any]) -> gs.Constant:
        """A constant; equal small ones are shared."""
        if values.size > 64:
            return self.editor.constant(name, values)
        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self.editor.constant(name, values)
        return self._constants[key]

    def exchange(
        self,
        node: gs.Node,
        op: str,
        inputs: Sequence[gs.Tensor],
        outlet: Outlet | gs.Tensor,
        *,
        removed: Iterable[gs.Node] = (),
        attrs: dict[str, Any] | None = None,
        domain: str | None = MICROSOFT,
    ) -> gs.Node:
        """Put one integer op in the place of `node`, of what follows up to the Qs (or up to a float tensor), and of the
        DQs that nobody else reads.
        """
        sources: list[gs.Node] = []
        gone = [node, *removed]
        result = outlet if not isinstance(outlet, Outlet) else self._merge(outlet)
        if isinstance(outlet, Outlet):
            gone += [*outlet.skipped, *outlet.quantizers]
        for one in gone:
            sources += self._dequantizers(one.inputs)
            self.editor.remove(one)
        name = f"{node.name}_{op}" if node.name else op
        new = self.editor.node(op, inputs, [result], name=name, attrs=attrs, domain=domain)
        self.editor.insert(new, before=node)
        self.sweep(sources)
        if node.name:
            self.report.renamed[new.name] = node.name
        self.report.rewrites += 1
        return new

    def feed(self, node: gs.Node, inputs: dict[int, gs.Tensor], outlets: Sequence[Outlet]) -> None:
        """Let an op that moves data run on integers."""
        sources = self._dequantizers(node.inputs[slot] for slot in inputs)
        for slot, tensor in inputs.items():
            self.editor.set_input(node, slot, tensor)
        kind = next(iter(inputs.values())).dtype
        for slot, outlet in enumerate(outlets):
            if outlet.to is None:
                node.outputs[slot].dtype = kind
                continue
            result = self._merge(outlet)
            for one in outlet.quantizers:
                self.editor.remove(one)
            self.editor.set_output(node, slot, result)
        self.sweep(sources)
        self.report.rewrites += 1

    def sweep(self, dequantizers: Iterable[gs.Node]) -> None:
        """Remove those of the DQs that nobody reads any more."""
        for node in dequantizers:
            result = node.outputs[0]
            if not self.editor.is_output(result) and not any(True for _ in self.editor.uses(result)):
                self.editor.remove(node)

    def _dequantizers(self, tensors: Iterable[gs.Tensor]) -> list[gs.Node]:
        """The DQs that make some of the tensors."""
        makers: list[Any] = [self.editor.producer(t) for t in tensors]
        return [m for m in makers if is_dq(m)]

    def drop(self, nodes: Iterable[gs.Node]) -> None:
        """Remove those of the nodes, in this order, whose outputs nobody reads any more."""
        for node in nodes:
            outputs = [t for t in node.outputs if t.name]
            if not any(self.editor.is_output(t) or any(True for _ in self.editor.uses(t)) for t in outputs):
                self.editor.remove(node)

    def _merge(self, outlet: Outlet) -> gs.Tensor:
        assert outlet.to is not None
        for one in outlet.quantizers:
            if one.outputs[0] is not outlet.to.integers:
                self.editor.replace_uses(one.outputs[0], outlet.to.integers)
        return outlet.to.integers

    def _parameter(self, source: gs.Node, slot: int, values: NDArray[Any], name: str) -> gs.Tensor:
        there = input_at(source, slot)
        if isinstance(there, gs.Constant) and tuple(there.shape) == values.shape:
            return there
        return self.constant(name, values)


class Fusion(Pass):
    """A pass that visits the nodes of some ops and lets each give a reason, or fuse."""

    takes: ClassVar[Stage] = Stage.QDQ
    also_takes: ClassVar[tuple[Stage, ...]] = (Stage.PLACED, Stage.FUSED)
    gives: ClassVar[Stage] = Stage.FUSED
    ops: ClassVar[tuple[str, ...]] = ()

    def run(self, graph: gs.Graph, context: Context) -> Report:
        """Rewrite in place."""
        work = Work(Editor(graph))
        for node in work.editor.live(ops=self.ops):
            if not self.near(work, node):
                continue
            try:
                self.fuse(work, node)
            except CannotFuseError as reason:
                work.report.refuse(node, str(reason))
        work.editor.commit()
        return work.report

    def near(self, work: Work, node: gs.Node) -> bool:
        """Is a fusion to be expected here, so that its absence wants a reason?"""
        return work.candidate(node)

    def fuse(self, work: Work, node: gs.Node) -> None:
        """Fuse one node, or leave everything as it is.

        Raises:
            CannotFuseError: why not.
        """
        raise NotImplementedError


def encoded(node: gs.Node, integers: gs.Tensor, types: Sequence[str]) -> Operand:
    """The encoding that a Q or DQ node writes or reads."""
    said = parameters(node)
    if said is None:
        if not all(isinstance(t, gs.Constant) for t in node.inputs[1:] if t.name):
            raise CannotFuseError(f"the scale or zero point of {node.name} is no constant")
        raise CannotFuseError(f"{node.name} has a scale or a type that no integer kernel takes")
    if said.block_size:
        raise CannotFuseError(f"{node.name} has a scale per block")
    if said.dtype not in types:
        raise CannotFuseError(f"{integers.name} is {said.dtype}, the kernel takes {' and '.join(types)}")
    return Operand(integers=integers, said=said, source=node)


def _check_redundant(node: gs.Node, to: Operand) -> None:
    """Saturation does what Relu or Clip does iff the bounds quantize to the ends of the integer range: Q is monotone,
    so Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)).
    """
    low, high = LEVELS[to.type]
    bounds: list[float | None] = [0.0, None]
    if node.op == "Clip":
        bounds = []
        for slot, attribute in ((1, "min"), (2, "max")):
            tensor = input_at(node, slot)
            if tensor is None:
                bounds.append(node.attrs.get(attribute))
                continue
            value = scalar(tensor)
            if value is None:
                raise CannotFuseError(f"a bound of {node.name} is no constant")
            bounds.append(value)
    for bound, end in zip(bounds, (low, high), strict=True):
        if bound is None:
            continue
        level = np.rint(np.float64(np.float32(bound) / to.said.scale)) + int(to.said.zero_point)
        if np.clip(level, low, high) != end:
            raise CannotFuseError(f"{node.name} cuts inside of the quantized range")


def check_signs(data: Operand, weight: Operand, to: Operand | None, *, native_int8: bool) -> None:
    """Integer matrix kernels exist for uint8 x uint8, uint8 x int8 and int8 x int8, and write the type of their data.

    Raises:
        CannotFuseError: another pair; or int8 data without `native_int8`.
    """
    if to is not None and to.type != data.type:
        raise CannotFuseError(f"its data is {data.type}, its output {to.type}")
    if data.type == "int8" and weight.type != "int8":
        raise CannotFuseError("there is no kernel for int8 data and a uint8 weight")
    if data.type == "int8" and not native_int8:
        raise CannotFuseError("int8 data is slower than float on x86: run signed-to-unsigned first, or set native_int8")


def check_columns(weight: Operand, axis: int) -> None:
    """A second matrix may have one scale, or one per column of the product.

    Raises:
        CannotFuseError: it has scales along another axis, or is no matrix.
    """
    if weight.said.axis is None:
        return
    if weight.integers.shape is None or len(weight.integers.shape) != 2:
        raise CannotFuseError(f"{weight.integers.name} has a scale per channel and is no matrix")
    if weight.said.axis % 2 != axis:
        raise CannotFuseError(
            f"{weight.integers.name} has a scale per index of axis {weight.said.axis % 2}, the kernel wants axis {axis}"
        )
