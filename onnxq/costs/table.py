"""Measured times by key, on one machine. A value: what is added makes a new table."""

from __future__ import annotations

import functools
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from onnxq.costs.key import CostKey
from onnxq.errors import UsageError
from onnxq.runtime.session import VERSION
from onnxq.targets.hardware import EXACT, detect

_FEATURES = EXACT | frozenset(
    {
        "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16",
        "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "asimdhp", "sve", "sve2", "bf16", "svei8mm",
    }
)  # fmt: skip
"""Instruction sets that ORT has kernels for: the others change no time."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where times were measured.

    Attributes:
        cpu: what the system calls it.
        family: instruction set.
        features: extensions of it that ORT has kernels for, sorted.
        onnxruntime: its version.
    """

    cpu: str
    family: str
    features: tuple[str, ...]
    onnxruntime: str

    def __str__(self) -> str:
        """One phrase."""
        return f"{self.cpu}, ONNX Runtime {self.onnxruntime}"


@functools.cache
def this_machine() -> Machine:
    """The one that this runs on."""
    cpu = detect()
    return Machine(
        cpu=_brand() or cpu.name,
        family=cpu.family,
        features=tuple(sorted(cpu.features & _FEATURES)),
        onnxruntime=VERSION,
    )


def _brand() -> str:
    """What the system calls the CPU; "" if it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Observations of one key, seconds per execution, sorted; each is the middle of many runs.

    Attributes:
        context: within a real model.
        alone: in a model of little else, where the inputs lie in the processor's caches.
    """

    context: tuple[float, ...] = ()
    alone: tuple[float, ...] = ()

    @property
    def observations(self) -> tuple[float, ...]:
        """Those that count: the ones in context if there are any."""
        return self.context or self.alone

    @property
    def seconds(self) -> float:
        """Their median."""
        return statistics.median(self.observations)

    @property
    def spread(self) -> float:
        """Largest less smallest."""
        return self.observations[-1] - self.observations[0]

    def union(self, other: Cost) -> Cost:
        """All observations of both, those that are equal once: so a file merged twice changes nothing."""
        return Cost(
            context=tuple(sorted({*self.context, *other.context})), alone=tuple(sorted({*self.alone, *other.alone}))
        )

    def thinned(self, limit: int) -> Cost:
        """At most `limit` observations of each kind, evenly spaced over the sorted ones, both ends among them.

        >>> Cost(context=(1.0, 2.0, 3.0, 4.0, 5.0)).thinned(3).context
        (1.0, 3.0, 5.0)
        """

        def pick(values: tuple[float, ...]) -> tuple[float, ...]:
            if len(values) <= limit:
                return values
            return tuple(values[round(i * (len(values) - 1) / (limit - 1))] for i in range(limit))

        return Cost(context=pick(self.context), alone=pick(self.alone))


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Times by key. Two tables of one machine can be merged, in any order and grouping, with one result."""

    machine: Machine
    costs: Mapping[CostKey, Cost] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of keys."""
        return len(self.costs)

    def lookup(self, key: CostKey) -> Cost | None:
        """What was measured for exactly this key."""
        return self.costs.get(key)

    def with_(self, key: CostKey, cost: Cost) -> CostTable:
        """A table with more observations.

        Raises:
            UsageError: the cost has no observation.
        """
        if not cost.observations:
            raise UsageError(f"the cost of {key.op} has no observation: give at least one")
        return CostTable(machine=self.machine, costs={**self.costs, key: self.costs.get(key, Cost()).union(cost)})

    def merge(self, *others: CostTable) -> CostTable:
        """All observations of all tables.

        Raises:
            UsageError: they are of different machines.
        """
        costs = dict(self.costs)
        for other in others:
            if other.machine != self.machine:
                raise UsageError(
                    f"costs of different machines ({self.machine}; {other.machine}) cannot be merged: "
                    "keep one file for each"
                )
            for key, cost in other.costs.items():
                costs[key] = costs[key].union(cost) if key in costs else cost
        return CostTable(machine=self.machine, costs=costs)

    @cached_property
    def by_kind(self) -> Mapping[str, tuple[tuple[CostKey, Cost], ...]]:
        """The entries of each op, whatever its domain."""
        found: dict[str, list[tuple[CostKey, Cost]]] = defaultdict(list)
        for key, cost in self.costs.items():
            found[key.kind].append((key, cost))
        return {kind: tuple(sorted(entries, key=lambda e: str(e[0]))) for kind, entries in found.items()}

    def foreign(self, here: Machine | None = None) -> str:
        """A sentence if the table was measured elsewhere or with another ONNX Runtime, else ""."""
        here = here or this_machine()
        if here == self.machine:
            return ""
        return f"the costs were measured elsewhere ({self.machine}); this is {here}"


def table_of(observed: Iterable[tuple[CostKey, float]], *, alone: bool, machine: Machine | None = None) -> CostTable:
    """A table of observations: pairs of key and seconds."""
    found: dict[CostKey, set[float]] = defaultdict(set)
    for key, seconds in observed:
        found[key].add(seconds)
    name = "alone" if alone else "context"
    costs = {key: Cost(**{name: tuple(sorted(values))}) for key, values in found.items()}
    return CostTable(machine=machine or this_machine(), costs=costs)
