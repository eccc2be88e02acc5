"""Why: a model that runs one row at a time waits for its weights, and one of 4 bits comes eight times as fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.blocks import Blocks, in_blocks
from onnxq.encoding import Kind
from onnxq.errors import ConfigError
from onnxq.pipeline.base import QUANTIZED, Context, Pass, Report, Stage
from onnxq.plan.kinds import BITS, weight_of
from onnxq_passes._kinds import Kinds

_SIZES, _LEAST = {4: 32, 8: 128}, 16


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights(Pass):
    """Write weights in blocks of 4 or 8 bits: MatMul and Gemm become MatMulNBits, Gather becomes GatherBlockQuantized
    (com.microsoft).

    1. MatMul, and Gemm with alpha = beta = 1 and no transA, with a constant matrix: each output channel is cut into
       blocks along the inputs, each with its own scale; a bias goes along, also that of an Add of a constant vector
       right behind.
    2. Gather of rows of a constant matrix: each row is cut into blocks.
    3. Which ones: those that the plan names; without a plan all that are possible and not kept float. A weight that is
       read in another form, too, stays, since it would be in the file twice.
    4. Each block is rounded to the nearest levels. With 4 bits, narrower ranges are tried, and the one with the least
       mean squared error is taken.

    The ops stay float at their borders. MatMulNBits rounds its data to 8 bits per block at `accuracy_level` 4, and to
    nothing at 0, which is slow.

    Attributes:
        bits: 4 or 8; where there is a plan, it decides.
        block_size: weights that share a scale, a power of 2 from 16 on; 0: 128 with 8 bits, 32 with 4.
        symmetric: no zero points; a little smaller and less exact.
        accuracy_level: of MatMulNBits.
    """

    takes: ClassVar[Stage] = Stage.FLOAT
    also_takes: ClassVar[tuple[Stage, ...]] = QUANTIZED
    gives: ClassVar[Stage] = Stage.FLOAT
    exact: ClassVar[bool] = False
    bits: int = 4
    block_size: int = 0
    symmetric: bool = False
    accuracy_level: int = 4

    def __post_init__(self) -> None:
        if self.bits not in BITS.values():
            raise ConfigError(f"quantize-weights: bits must be 4 or 8, not {self.bits}")
        if self.block_size and (self.block_size < 16 or self.block_size.bit_count() != 1):
            raise ConfigError(f"quantize-weights: block_size must be a power of 2 from 16 on, not {self.block_size}")
        if not 0 <= self.accuracy_level <= 4:
            raise ConfigError(f"quantize-weights: accuracy_level must be 0 to 4, not {self.accuracy_level}")

    def run(self, graph: gs.Graph, context: Context) -> Report:
        work = Kinds(graph, context)
        wanted: Kind = next(kind for kind, bits in BITS.items() if bits == self.bits)
        for node, kind in work.chosen(wanted, tuple(BITS)):
            if node.op == "Gather":
                self._gather(work, node, BITS[kind])
            else:
                self._product(work, node, BITS[kind])
        return work.done()

    def _product(self, work: Kinds, node: gs.Node, bits: int) -> None:
        weight, tensor = weight_of(node), node.inputs[1]
        assert weight is not None
        rows, columns = weight.shape

        def make() -> list[tuple[str, NDArray[Any]]]:
            made = self._blocks(weight.T, bits)
            zero = [] if made.packed_zero is None else [(f"{tensor.name}_zero_point", made.packed_zero)]
            return [(f"{tensor.name}_quantized", made.packed), (f"{tensor.name}_scale", made.scale), *zero]

        inputs: list[gs.Tensor] = [node.inputs[0], *work.constants((id(tensor), bits), make)]
        bias, last = work.bias(node, columns)
        if bias is not None:
            inputs += [gs.Variable.empty()] * (5 - len(inputs)) + [bias]
        attrs = {
            "K": rows, "N": columns, "bits": bits, "block_size": self._size(bits, rows),
            "accuracy_level": self.accuracy_level,
        }  # fmt: skip
        work.exchange(node, last, "MatMulNBits", inputs, attrs)

    def _gather(self, work: Kinds, node: gs.Node, bits: int) -> None:
        table = node.inputs[0]

        def make() -> list[tuple[str, NDArray[Any]]]:
            made = self._blocks(np.asarray(table.values), bits)
            zero = [] if made.packed_zero is None else [(f"{table.name}_zero_point", made.packed_zero)]
            return [(f"{table.name}_quantized", made.rows), (f"{table.name}_scale", made.scale), *zero]

        levels, *parameters = work.constants((id(table), bits), make)
        size = self._size(bits, table.shape[1])
        attrs = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
        work.exchange(node, node, "GatherBlockQuantized", [levels, node.inputs[1], *parameters], attrs)

    def _blocks(self, matrix: NDArray[Any], bits: int) -> Blocks:
        size = self._size(bits, matrix.shape[1])
        return in_blocks(matrix, bits=bits, size=size, symmetric=self.symmetric, search=bits == 4)

    def _size(self, bits: int, columns: int) -> int:
        """Of a block; not much longer than a row."""
        size = self.block_size or _SIZES[bits]
        while size > _LEAST and size >= 2 * columns:
            size //= 2
        return size
