"""From profiles to costs and back: what a profile measured, and what a model takes by what was measured before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from onnxq.costs.estimate import Costs
from onnxq.costs.key import CostKey, key_of
from onnxq.costs.table import CostTable, Machine, table_of
from onnxq.ir import walk
from onnxq.runtime.profile import KernelRun, Profile

_CONTROL = frozenset({"If", "Loop", "Scan"})
_DIGITS = 10  # a tenth of a nanosecond


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A profile with the times of a table in place of its own.

    Attributes:
        profile: each kernel with its seconds by the table; `seconds` is their sum and the call.
        measured: names of the kernels whose key is in the table.
        estimated: name of each other one -> how its time was found, see `onnxq.costs.estimate`.
        foreign: ops of which the tables hold nothing in any shape, ascending.
    """

    profile: Profile
    measured: tuple[str, ...]
    estimated: dict[str, str]
    foreign: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the seconds of all kernels, those that are measured; 1 if there are none."""
        known = set(self.measured)
        total = self.profile.kernel_seconds
        return sum(k.seconds for k in self.profile.kernels if k.name in known) / total if total > 0 else 1.0


def keys(profile: Profile, *, threads: int = 1) -> Iterator[tuple[KernelRun, CostKey]]:
    """Each kernel of a profile with its key. If, Loop and Scan have none, the kernels in their bodies do."""
    nodes = {n.name: n for _, inner in walk.graphs(profile.graph.graph) for n in inner.nodes}
    for kernel in profile.kernels:
        if kernel.op not in _CONTROL:
            yield kernel, key_of(kernel, nodes[kernel.name], threads=threads)


def observe(profile: Profile, *, threads: int = 1, alone: bool = False, machine: Machine | None = None) -> CostTable:
    """What a profile measured, per execution of each kernel.

    Args:
        threads: of the profile.
        alone: the profiled model was made for measuring, see `Cost`.
        machine: where the profile was made; None: here.
    """
    return table_of(
        (
            (key, round(kernel.seconds / kernel.count, _DIGITS))
            for kernel, key in keys(profile, threads=threads)
            if kernel.count > 0
        ),
        alone=alone,
        machine=machine,
    )


def price(profile: Profile, costs: Costs, *, threads: int = 1) -> Priced:
    """What the profiled model takes by other measurements, for instance those of the machine that it is to run on.

    A kernel without key keeps its own time, and one that nothing is known of, too.
    """
    found: dict[str, KernelRun] = {}
    measured: list[str] = []
    estimated: dict[str, str] = {}
    foreign: set[str] = set()
    for kernel, key in keys(profile, threads=threads):
        estimate = costs.seconds(key)
        seconds = estimate.seconds * kernel.count if estimate.seconds > 0 else kernel.seconds
        found[kernel.name] = dataclasses.replace(kernel, seconds=seconds)
        if estimate.measured:
            measured.append(kernel.name)
        else:
            estimated[kernel.name] = estimate.how
            if not costs.knows(key):
                foreign.add(kernel.op)
    kernels = tuple(found.get(k.name, k) for k in profile.kernels)
    total = profile.call + sum(k.seconds for k in kernels)
    priced = dataclasses.replace(profile, kernels=kernels, seconds=total)
    return Priced(profile=priced, measured=tuple(measured), estimated=estimated, foreign=tuple(sorted(foreign)))
