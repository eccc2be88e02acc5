"""Which Transposes and Reshapes make a MatMul of an Einsum of two operands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq_passes._edit import is_constant

Sizes = Mapping[str, int | str | None]
"""Letter -> size, symbol, or None if unknown."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """An operand or the result of the product.

    Attributes:
        tensor: what Einsum reads or writes.
        term: the letters of its axes.
        groups: the axes that MatMul wants, each of one letter or several.
        shape: what it is reshaped to; empty: nothing to reshape, -1: a size is not known.
    """

    tensor: gs.Tensor
    term: str
    groups: Sequence[str]
    shape: Sequence[int]

    @property
    def letters(self) -> str:
        """The letters in the order that MatMul wants."""
        return "".join(self.groups)

    def variable(self, name: str, groups: Sequence[str]) -> gs.Variable:
        """A tensor of the same elements with these axes."""
        sizes = sizes_of(self.tensor, self.term)
        dims = [sizes.get(g) if len(g) == 1 else _product(g, sizes) for g in groups]
        shape = None if self.tensor.shape is None else [None if d == -1 else d for d in dims]
        return gs.Variable(name, dtype=self.tensor.dtype, shape=shape)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The operands of a MatMul, in its order, and its result."""

    operands: tuple[Side, Side]
    result: Side

    @property
    def cost(self) -> tuple[int, int]:
        """Transposes and Reshapes at run time."""
        paid = [side for side in (*self.operands, self.result) if not is_constant(side.tensor)]
        return sum(side.letters != side.term for side in paid), sum(bool(side.shape) for side in paid)


def sizes_of(tensor: gs.Tensor, term: str) -> dict[str, int | str | None]:
    """The size of each letter of a tensor."""
    dims = [None] * len(term) if tensor.shape is None else tensor.shape
    return {c: int(d) if isinstance(d, (int, np.integer)) else d or None for c, d in zip(term, dims, strict=True)}


def plans(tensors: Sequence[gs.Tensor], terms: Sequence[str]) -> Iterator[Plan]:
    """Every order of axes that may spare a Transpose, if the sizes of its Reshapes are known.

    Args:
        tensors, terms: two operands and the result, and their letters: each letter is of both operands, or of the
            result, or of all three; there are such of one operand and the result, for each of the two.
    """
    first, second, out = terms
    a, b, y = (frozenset(term) for term in terms)
    sizes = [sizes_of(tensor, term) for tensor, term in zip(tensors[:2], terms[:2], strict=True)]
    sizes.append({**sizes[1], **sizes[0]})
    every = itertools.product(
        _orders(a & b & y, out, first, second),
        _lasts(_orders(y - b, out, first)),
        _orders(a & b - y, first, second),
        _orders(y - a, out, second),
    )
    for batch, rows, summed, columns in every:
        for cut in range(len(rows) - 1, -1, -1):
            lead, row = rows[:cut], rows[cut:]
            if batch and lead and _product(lead, sizes[0]) == -1:
                continue  # MatMul adds no axis in front of batches where there are no rows
            axes = [*lead, *batch, row, summed], [*batch, summed, columns], [*lead, *batch, row, columns]
            split = [list("".join(groups)) for groups in axes]
            ways = [(split[0], axes[0]), (split[1], axes[1]), (axes[2], split[2])]
            shapes = [_shape(have, want, known) for (have, want), known in zip(ways, sizes, strict=True)]
            if -1 not in itertools.chain(*shapes):
                one, two, result = (
                    Side(tensor=tensor, term=term, groups=groups, shape=shape)
                    for tensor, term, groups, shape in zip(tensors, terms, axes, shapes, strict=True)
                )
                yield Plan(operands=(one, two), result=result)


def _orders(letters: frozenset[str], *like: str) -> list[str]:
    return list(dict.fromkeys("".join(c for c in term if c in letters) for term in like))


def _lasts(orders: Sequence[str]) -> list[str]:
    """These orders, and each with another letter at the end: its size may be unknown."""
    turned = [order.replace(last, "") + last for order in orders for last in order]
    return list(dict.fromkeys([*orders, *turned]))


def _shape(have: Sequence[str], want: Sequence[str], sizes: Sizes) -> list[int]:
    """The constant of a Reshape; 0 copies a size, which may be unknown or none. Empty if there is nothing to do."""
    if have == want:
        return []
    return [0 if [*have[at : at + 1]] == [group] else _product(group, sizes) for at, group in enumerate(want)]


def _product(group: str, sizes: Sizes) -> int:
    """How many elements these axes have; -1 if that is not known, or none."""
    known = [d for d in map(sizes.get, group) if isinstance(d, int) and d > 0]
    return math.prod(known) if len(known) == len(group) else -1
