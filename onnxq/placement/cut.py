"""The cheapest assignment of units to float or int8.

Each unit costs its float or its integer time; each tensor that crosses between the two worlds costs one QuantizeLinear
or one DequantizeLinear, however many ops read it. With two labels and such costs the problem is a minimum cut (Greig,
Porteous, Seheult 1989; Kolmogorov and Zabih 2004: the pairwise terms are submodular), with one more vertex per
conversion. A bound on the summed noise makes it an integer program.

A unit that is float at its borders may compute with integers inside: such kinds are further costs of its float side.
Nothing around it depends on which one it is, so each unit takes its best one for itself, and two labels are enough.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import Kind

Labels = tuple[bool, ...]
"""By unit: True is int8."""

Kinds = tuple[Kind | None, ...]
"""By unit: how it computes between float borders; None where it is float, or int8."""

_CAPACITY = 2**30
"""Sum of all finite capacities: scipy's maximum_flow wants int32, and answered 0 for large int64 capacities."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What a unit can be instead of float, with float borders; or, if it has bodies, instead of int8 alone.

    Attributes:
        kind: how it computes, or what in its bodies cannot be int8.
        cost: seconds of one run.
        noise: relative output noise energy that it adds.
        integer: it is an alternative to int8.
    """

    kind: Kind
    cost: float
    noise: float = 0.0
    integer: bool = False


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is placed as one.

    Attributes:
        name: of its first node.
        float_cost, integer_cost: seconds of one run.
        noise: relative output noise energy that int8 adds; 0 if it was not measured.
        alternatives: to float and to int8, by kind.
        placeable: it can be int8.
    """

    name: str
    float_cost: float
    integer_cost: float
    noise: float = 0.0
    alternatives: tuple[Alternative, ...] = ()
    placeable: bool = True

    def form(self, integer: bool, kind: Kind | None = None) -> tuple[float, float]:
        """Cost and noise with this label and kind; of a kind that it cannot have, those without."""
        for one in self.alternatives:
            if (one.kind, one.integer) == (kind, integer):
                return one.cost, one.noise
        return (self.integer_cost, self.noise) if integer else (self.float_cost, 0.0)

    def best(self, integer: bool, price: float = 0.0) -> tuple[float, Kind | None]:
        """Of one label: the least cost + price * noise, and the kind that has it, if that is less than without."""
        cost, noise = self.form(integer)
        least, best = cost + price * noise, None
        for one in self.alternatives:
            if one.integer == integer and one.cost + price * one.noise < least:
                least, best = one.cost + price * one.noise, one.kind
        return least, best


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A tensor that may have to be converted.

    Attributes:
        tensor: its name.
        producer: index of the unit that makes it in 8 bits when it is int8; None: it is always made in float.
        readers: indices of the units that read it in 8 bits when they are int8, and in float when they are not.
        float_readers: something else reads it, always in float.
        quantize, dequantize: seconds of one conversion.
    """

    tensor: str
    producer: int | None
    readers: tuple[int, ...]
    float_readers: bool
    quantize: float
    dequantize: float


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Units and the tensors between them; `fixed` is time that no choice changes, in seconds."""

    units: tuple[Unit, ...]
    crossings: tuple[Crossing, ...]
    fixed: float = 0.0

    def cost(self, labels: Sequence[bool], kinds: Kinds = ()) -> float:
        """Seconds of one run with these labels and kinds, or none."""
        total = self.fixed
        for unit, integer, kind in zip(self.units, labels, kinds or (None,) * len(self.units), strict=True):
            total += unit.form(integer, kind)[0]
        for crossing in self.crossings:
            quantizes, dequantizes = conversions(crossing, labels)
            total += crossing.quantize * quantizes + crossing.dequantize * dequantizes
        return total

    def noise(self, labels: Sequence[bool], kinds: Kinds = ()) -> float:
        """Sum of the noise of the int8 units and of those with a kind."""
        total = 0.0
        for unit, integer, kind in zip(self.units, labels, kinds or (None,) * len(self.units), strict=True):
            total += unit.form(integer, kind)[1]
        return total

    def kinds(self, labels: Sequence[bool], price: float = 0.0) -> Kinds:
        """The best kind of each unit with its label, with a price of noise in seconds."""
        return tuple(unit.best(integer, price)[1] for unit, integer in zip(self.units, labels, strict=True))


def combined(problems: Sequence[Problem], weights: Sequence[float]) -> Problem:
    """One problem of several over the same units and tensors: costs are weighted sums, noise is the first one's."""

    def add(costs: Iterable[float]) -> float:
        return sum(w * c for w, c in zip(weights, costs, strict=True))

    units = tuple(
        replace(
            same[0],
            float_cost=add(u.float_cost for u in same),
            integer_cost=add(u.integer_cost for u in same),
            alternatives=tuple(
                replace(each[0], cost=add(a.cost for a in each))
                for each in zip(*(u.alternatives for u in same), strict=True)
            ),
        )
        for same in zip(*(p.units for p in problems), strict=True)
    )
    crossings = tuple(
        replace(same[0], quantize=add(c.quantize for c in same), dequantize=add(c.dequantize for c in same))
        for same in zip(*(p.crossings for p in problems), strict=True)
    )
    return Problem(units=units, crossings=crossings, fixed=add(p.fixed for p in problems))


def conversions(crossing: Crossing, labels: Sequence[bool]) -> tuple[bool, bool]:
    """Is the tensor quantized, is it dequantized?"""
    made = crossing.producer is not None and labels[crossing.producer]
    wanted = any(labels[reader] for reader in crossing.readers)
    in_float = crossing.float_readers or not all(labels[reader] for reader in crossing.readers)
    return wanted and not made, made and in_float


def cheapest(problem: Problem, price: float = 0.0) -> Labels:
    """Labels of the least cost + price * noise, if all others have their best kind (`Problem.kinds`); of equal ones
    those with the fewest units in int8.

    Args:
        price: seconds per unit of noise.
    """
    # imported here: half a second that only placement pays
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    edges = list(_edges(problem, price))
    finite = sum(weight for _, _, weight in edges if weight != float("inf"))
    if finite <= 0:
        return (False,) * len(problem.units)
    scale = _CAPACITY / finite
    size = max(_FIRST + len(problem.units), max(max(a, b) for a, b, _ in edges) + 1)
    capacity = np.zeros((len(edges),), dtype=np.int32)
    for index, (_, _, weight) in enumerate(edges):
        capacity[index] = _CAPACITY + 1 if weight == float("inf") else round(weight * scale)
    ends: NDArray[np.int32] = np.array([(a, b) for a, b, _ in edges], dtype=np.int32)
    graph = csr_array((capacity, (ends[:, 0], ends[:, 1])), shape=(size, size))
    graph.sum_duplicates()
    residual = (graph - maximum_flow(graph, _SOURCE, _SINK).flow).tocsr()
    reached = _reached(residual, size)
    return tuple(bool(reached[_FIRST + i]) for i in range(len(problem.units)))


_SOURCE, _SINK, _FIRST = 0, 1, 2


def _edges(problem: Problem, price: float) -> Iterator[tuple[int, int, float]]:
    """Vertices on the source's side of the cut are int8."""
    forever = float("inf")
    for index, unit in enumerate(problem.units):
        gain = unit.best(False, price)[0] - unit.best(True, price)[0]
        if not unit.placeable:
            yield _FIRST + index, _SINK, forever
        elif gain > 0:
            yield _SOURCE, _FIRST + index, gain  # lost if it is float
        elif gain < 0:
            yield _FIRST + index, _SINK, -gain
    extra = _FIRST + len(problem.units)
    for crossing in problem.crossings:
        producer = None if crossing.producer is None else _FIRST + crossing.producer
        if crossing.readers and crossing.quantize > 0:
            for reader in set(crossing.readers):  # a reader in int8 pulls the quantized form along
                yield _FIRST + reader, extra, forever
            yield extra, _SINK if producer is None else producer, crossing.quantize
            extra += 1
        if producer is None or crossing.dequantize <= 0:
            continue
        if crossing.float_readers:
            yield producer, _SINK, crossing.dequantize
        elif crossing.readers:
            for reader in set(crossing.readers):  # a reader in float pulls the float form along
                yield extra, _FIRST + reader, forever
            yield producer, extra, crossing.dequantize
            extra += 1


def _reached(residual: object, size: int) -> NDArray[np.bool_]:
    """Vertices that the source still reaches: the least source side of all minimum cuts."""
    indptr, indices, data = residual.indptr, residual.indices, residual.data  # type: ignore[attr-defined]
    seen: NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
    seen[_SOURCE] = True
    queue = deque([_SOURCE])
    while queue:
        vertex = queue.popleft()
        for at in range(indptr[vertex], indptr[vertex + 1]):
            target = int(indices[at])
            if data[at] > 0 and not seen[target]:
                seen[target] = True
                queue.append(target)
    return seen


def quietest(problem: Problem, limit: float) -> tuple[Labels, Kinds]:
    """Labels and kinds of the least cost whose noise is at most `limit`, by HiGHS's branch and bound.

    Raises:
        ValueError: the limit is negative, so not even all float meets it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    if limit < 0:
        raise ValueError(f"no assignment has a noise below 0, the limit is {limit}")
    inside = [(i, a) for i, u in enumerate(problem.units) for a in u.alternatives]
    count = len(problem.units)
    units = count + len(inside)  # a variable for int8, and one for each kind
    gains = [u.integer_cost - u.float_cost for u in problem.units]
    gains += [a.cost - problem.units[i].form(a.integer)[0] for i, a in inside]
    extra: list[float] = []
    rows: list[list[tuple[int, float]]] = []
    upper: list[float] = []
    for crossing in problem.crossings:
        made = [] if crossing.producer is None else [(crossing.producer, 1.0)]
        if crossing.quantize > 0:  # q >= reader - producer
            at = units + len(extra)
            extra.append(crossing.quantize)
            for reader in crossing.readers:
                rows.append([(reader, 1.0), *((p, -w) for p, w in made), (at, -1.0)])
                upper.append(0.0)
        if made and crossing.dequantize > 0:  # d >= producer - reader, or >= producer
            at = units + len(extra)
            extra.append(crossing.dequantize)
            if crossing.float_readers:
                rows.append([*made, (at, -1.0)])
                upper.append(0.0)
            for reader in crossing.readers:
                rows.append([*made, (reader, -1.0), (at, -1.0)])
                upper.append(0.0)
    noises = [*(u.noise for u in problem.units), *(a.noise - problem.units[i].form(a.integer)[1] for i, a in inside)]
    rows.append(list(enumerate(noises)))
    upper.append(limit)
    for index, unit in enumerate(problem.units):
        for integer in {a.integer for a in unit.alternatives}:  # one at most, and only with its label
            mine = [count + at for at, (i, a) in enumerate(inside) if i == index and a.integer == integer]
            rows.append([(index, -1.0 if integer else 1.0), *((at, 1.0) for at in mine)])
            upper.append(0.0 if integer else 1.0)
    # a reader that is the producer itself appears twice in a row: the entries add up
    entries = [(r, c, w) for r, row in enumerate(rows) for c, w in row]
    matrix = coo_array(
        ([w for _, _, w in entries], ([r for r, _, _ in entries], [c for _, c, _ in entries])),
        shape=(len(rows), units + len(extra)),
    ).tocsr()
    largest = max((abs(c) for c in [*gains, *extra]), default=0.0) or 1.0  # HiGHS's tolerances are absolute
    highest = np.array([float(u.placeable) for u in problem.units] + [1.0] * (len(inside) + len(extra)))
    solved = milp(
        np.array([*gains, *extra]) / largest,
        integrality=np.array([1] * units + [0] * len(extra)),
        bounds=Bounds(0, highest),  # pyright: ignore[reportArgumentType] (its stub knows floats only)
        constraints=LinearConstraint(matrix, ub=np.array(upper)),  # pyright: ignore[reportArgumentType] (its stub knows floats only)
    )
    kinds: list[Kind | None] = [None] * count
    for x, (index, alternative) in zip(solved.x[count:units], inside, strict=True):
        kinds[index] = alternative.kind if x > 0.5 else kinds[index]
    return tuple(bool(x > 0.5) for x in solved.x[:count]), tuple(kinds)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One assignment of the front: seconds of one run against noise."""

    labels: Labels
    kinds: Kinds
    seconds: float
    noise: float


def front(problem: Problem, limit: int = 32) -> tuple[Point, ...]:
    """The corners of the convex part of the front, fastest first: each is the best for some price of noise.

    Between two corners the price at which both cost the same is tried; what it finds is a corner between them, or there
    is none (Eisner and Severance 1976).

    Args:
        limit: greatest number of cuts.
    """

    def point(labels: Labels, kinds: Kinds) -> Point:
        return Point(
            labels=labels, kinds=kinds, seconds=problem.cost(labels, kinds), noise=problem.noise(labels, kinds)
        )

    def best(price: float) -> Point:
        labels = cheapest(problem, price)
        return point(labels, problem.kinds(labels, price))

    fastest, least = best(0.0), point((False,) * len(problem.units), (None,) * len(problem.units))
    found = {(fastest.labels, fastest.kinds): fastest}
    open_pairs = deque([(fastest, least)])
    while open_pairs and limit > 0:
        fast, quiet = open_pairs.popleft()
        saved = fast.noise - quiet.noise
        if saved <= 0 or quiet.seconds <= fast.seconds:
            continue
        limit -= 1
        between = best((quiet.seconds - fast.seconds) / saved)
        if (between.labels, between.kinds) in found:
            continue
        if not quiet.noise < between.noise < fast.noise:
            continue
        found[between.labels, between.kinds] = between
        open_pairs.extend([(fast, between), (between, quiet)])
    found.setdefault((least.labels, least.kinds), least)
    return tuple(sorted(found.values(), key=lambda p: (p.seconds, p.noise, p.labels, str(p.kinds))))


def every(problem: Problem) -> Iterator[Labels]:
    """All labels that units can have, for tests and tiny problems."""
    yield from itertools.product(*((False, True) if u.placeable else (False,) for u in problem.units))
