"""Regions that a local search flips: neighbouring units of one label, the most doubtful first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnxq.placement.cut import Labels, Problem


def regions(problem: Problem, labels: Labels) -> list[tuple[int, ...]]:
    """Units that hang together by tensors and have one label, graph order."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for crossing in problem.crossings:
        ends = {*crossing.readers, *([] if crossing.producer is None else [crossing.producer])}
        for one in ends:
            neighbours[one] |= {other for other in ends if labels[other] == labels[one]}
    seen: set[int] = set()
    found: list[tuple[int, ...]] = []
    for start in range(len(labels)):
        if start in seen:
            continue
        region, queue = {start}, [start]
        while queue:
            for other in neighbours[queue.pop()] - region:
                region.add(other)
                queue.append(other)
        seen |= region
        found.append(tuple(sorted(region)))
    return found


def flips(problem: Problem, labels: Labels) -> Iterator[Labels]:
    """Assignments with one region, or one unit at the edge of a region, on the other side.

    The order is that of what the flip costs by the costs that are known, the cheapest first: those are the ones that a
    small error of the costs would have decided otherwise.
    """
    now = problem.cost(labels, problem.kinds(labels))
    candidates = {region for region in regions(problem, labels) if len(region) < len(labels)}
    for crossing in problem.crossings:
        ends = {*crossing.readers, *([] if crossing.producer is None else [crossing.producer])}
        if len({labels[e] for e in ends}) > 1:
            candidates |= {(e,) for e in ends}
    priced = []
    for region in candidates:
        flipped = tuple(
            not label if i in region and problem.units[i].placeable else label for i, label in enumerate(labels)
        )
        if flipped != labels:
            priced.append((problem.cost(flipped, problem.kinds(flipped)) - now, region, flipped))
    for _, _, flipped in sorted(priced):
        yield flipped
