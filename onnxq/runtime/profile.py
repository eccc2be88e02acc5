"""Where the time of a model goes: ORT's profiler, joined to the optimized graph of the same session.

The profiler itself costs more than a small kernel: about 2 us inside the time that it gives for each execution and 2 us
between two of them, where going from one kernel to the next takes 0.2 us without it. So the times are corrected:

    raw_k     = midmean over runs of the time that the profiler gives (whole microseconds, cut off, plus 0.5)
    seconds_k = max(raw_k - executions_k * inside, 0.1 us) * scale

`inside` is chosen such that the kernels and `call` (what a run takes that has nothing to do) add up to the run without
the profiler (its lower quartile), within a factor of 2 of what a chain of 100 trivial nodes shows, measured once per
process and number of threads (with several of them the profiler watches the pool, too). Runs that were disturbed do
not count, and where samples differ in size, each statistic is the mean over the sizes (`onnxq.runtime.sizes`). With one
thread the clock is the thread's own processor time, which stands still while others have the core. Where the kernels
are longer together even so, because others had the core while they ran, `scale` brings them down; else it is 1. The
midmean (mean of the middle half) is as robust as the median, and finer than a microsecond, because runs differ by more
than that.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError, UsageError
from onnxq.ir import load, save, text, walk
from onnxq.ir.model import Model
from onnxq.ir.names import unique_nodes
from onnxq.runtime.events import ABSENT, Seen, Typed, gather, split
from onnxq.runtime.rows import LEAST, times_of
from onnxq.runtime.session import Level, Session
from onnxq.runtime.sizes import Sizes, calm
from onnxq.runtime.turns import IN_TURNS

Inputs = Mapping[str, NDArray[Any]]


_CHAIN = 100
_TRUST = 2.0
_ORT_NAMES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True, kw_only=True)
class KernelRun:
    """One node of the optimized graph at work.

    Attributes:
        name: of the node in `Profile.graph`.
        op: type with domain ("Conv", "com.microsoft.nchwc.Conv").
        seconds: per run of the model, all executions together. Of If, Loop and Scan without what their bodies take.
        inputs: one per input slot, constants included (ORT's own list lacks prepacked ones), of the first execution.
        outputs: one per output slot, of the first execution.
        count: executions per run, median.
        path: where the node is: () or steps `node/attribute` into bodies.
    """

    name: str
    op: str
    seconds: float
    inputs: tuple[Typed, ...]
    outputs: tuple[Typed, ...]
    count: int = 1
    path: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A model's run, taken apart.

    Attributes:
        kernels: in the order of their first execution.
        seconds: median time of a whole run without the profiler.
        call: what a run takes that has nothing to do.
        inside: what was taken off each execution of a kernel.
        profiled_seconds: median time of a run with the profiler on.
        graph: what ORT made of the model at this level, with unique node names.
        scale: what the kernels were multiplied with; well below 1 on a machine with much else to do.
        fast: what `kernels` and `call` are fitted to: the lower quartile of a run without the profiler.
        beside_seconds: the same of the session that ran in the same turns; NaN without one.
    """

    kernels: tuple[KernelRun, ...]
    seconds: float
    call: float
    inside: float
    profiled_seconds: float
    graph: Model
    scale: float = 1.0
    fast: float = math.nan
    beside_seconds: float = math.nan

    @property
    def kernel_seconds(self) -> float:
        """Sum over the kernels. With `call` it is near `seconds` unless the machine is busy."""
        return sum(k.seconds for k in self.kernels)


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """What measuring costs, in seconds: the profiler within an execution and between two, and a call of a session."""

    inside: float
    between: float
    call: float


def profile(
    model: Path | bytes,
    samples: Sequence[Inputs],
    *,
    threads: int = 1,
    runs: int,
    warmup: int = 2,
    level: Level = Level.ALL,
    config: Mapping[str, str] | None = None,
    distortion: Distortion | None = None,
    clock: Callable[[], float] | None = None,
    beside: Session | None = None,
) -> Profile:
    """Run a model with and without ORT's profiler, in turn.

    Args:
        model: a file, or the serialized model.
        samples: inputs, used in turn.
        threads: intra-op threads.
        runs: timed runs of either kind.
        warmup: untimed runs before.
        level: graph optimization level.
        config: session configuration entries.
        distortion: what the profiler adds; None: as measured on this machine.
        clock: seconds; None: processor time of the thread if there is one, else time on the wall.
        beside: of another form of the model, with as many threads, made with `IN_TURNS`: takes part in the turns, so
            that profiles of several forms can be brought to one clock.

    Raises:
        UsageError: nothing to run with.
        ModelError: the model does not load or run, or the profile cannot be read.
    """
    if not samples or threads < 1 or runs < 1 or warmup < 0:
        raise UsageError("a profile needs at least one sample, one thread and one run")
    wrong = distortion or measure_distortion(threads)
    timed = _run(model, samples, threads, runs, warmup, level, config or {}, clock or _clock(threads), beside)
    nodes = gather(timed.events, between=wrong.between)
    joined = _join(timed.graph, nodes)
    unique_nodes(timed.graph.graph)
    paths = {id(n): path for path, inner in walk.graphs(timed.graph.graph) for n in inner.nodes}
    counts = [int(np.median([n.count.get(r, 0) for r in range(runs)])) for n in nodes]
    sizes = Sizes.of(samples)
    size, times = sizes.runs(runs), np.maximum(np.array(timed.times), LEAST)
    counted = np.flatnonzero(calm(times.T, size)).tolist()

    def typical(values: Sequence[float] | NDArray[np.float64], middle: Callable[[Sequence[float]], float]) -> float:
        return sizes.typical([float(values[run]) for run in counted], middle, size[counted].tolist())

    raw = [typical([n.seconds.get(r, 0.0) for r in range(runs)], _midmean) for n in nodes]
    plain, profiled, *others = times
    fast = typical(plain, _lower)
    target = max(fast - wrong.call, 0.0)
    inside = _inside(raw, counts, target, wrong.inside)
    own = [max(value - inside * count, LEAST) for value, count in zip(raw, counts, strict=True)]
    scale = min(1.0, max(target, 0.5 * fast) / sum(own)) if own else 1.0
    kernels = tuple(
        KernelRun(
            name=node.name,
            op=f"{node.domain}.{node.op}" if node.domain not in (None, "", "ai.onnx") else node.op,
            seconds=value * scale,
            inputs=_inputs(node, seen.inputs),
            outputs=_outputs(node, seen.outputs),
            count=count,
            path=paths[id(node)],
        )
        for seen, value, count, node in zip(nodes, own, counts, joined, strict=True)
    )
    return Profile(
        kernels=kernels,
        seconds=typical(plain, _median),
        call=wrong.call,
        inside=inside,
        profiled_seconds=typical(profiled, _median),
        graph=timed.graph,
        scale=scale,
        fast=fast,
        beside_seconds=typical(others[0], _lower) if others else math.nan,
    )


@functools.cache
def measure_distortion(threads: int = 1) -> Distortion:
    """Of this machine, measured once per process on chains of 1 and 100 nodes that do next to nothing (50 ms)."""
    one, many = (
        _run(_chain(n), [{"x": np.ones((1, 1, 1, 1), np.float32)}], threads, 20, 5, Level.OFF, {}, _clock(threads))
        for n in (1, _CHAIN)
    )
    (few, few_profiled), (all_, all_profiled) = ((_lower(run.times[0]), _median(run.times[1])) for run in (one, many))
    node = max(0.0, all_ - few) / (_CHAIN - 1)
    inside = float(np.mean([_midmean(list(n.seconds.values())) for n in gather(many.events)]))
    apart = (all_profiled - few_profiled) / (_CHAIN - 1) - inside
    return Distortion(inside=max(0.0, inside - node), between=max(0.0, apart), call=max(0.0, few - node))


def _inside(raw: Sequence[float], counts: Sequence[int], target: float, chain: float) -> float:
    """What to take off each execution so that the kernels add up to `target` seconds; at most twice `chain`."""
    low, high = chain / _TRUST, chain * _TRUST
    for _ in range(40):
        middle = 0.5 * (low + high)
        total = sum(max(r - middle * c, LEAST) for r, c in zip(raw, counts, strict=True))
        low, high = (middle, high) if total > target else (low, middle)
    return 0.5 * (low + high)


def _clock(threads: int) -> Callable[[], float]:
    return time.thread_time if threads == 1 else time.perf_counter


def _chain(count: int) -> bytes:
    steps = " ".join(f"tensor_{i + 1} = Sum(tensor_{i}, tensor_{i}, tensor_{i})" for i in range(1, count))
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    source = f"{head} chain (float[1,1,1,1] x) => (float[1,1,1,1] tensor_{count}) {{ tensor_1 = Neg(x) {steps} }}"
    return save.to_bytes(text.parse(source))


@dataclass(frozen=True)
class _Timed:
    """`times`: of the plain session, the profiled one and the one beside, one per run; `events`: the second's."""

    times: Sequence[Sequence[float]]
    events: Sequence[Sequence[Mapping[str, Any]]]
    graph: Model


def _run(
    model: Path | bytes,
    samples: Sequence[Inputs],
    threads: int,
    runs: int,
    warmup: int,
    level: Level,
    config: Mapping[str, str],
    clock: Callable[[], float],
    beside: Session | None = None,
) -> _Timed:
    config = {**IN_TURNS, **config}
    with tempfile.TemporaryDirectory(prefix="onnxq-", ignore_cleanup_errors=True) as folder:
        saved = Path(folder) / "optimized.onnx"
        external = {
            "session.optimized_model_external_initializers_file_name": f"{saved.name}.data",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        }
        plain = Session(model, level=level, threads=threads, config=config)
        watched = Session(
            model,
            level=level,
            threads=threads,
            config={**config, **external},
            save_optimized=saved,
            profile_prefix=Path(folder) / "profile",
        )
        sessions = [plain, watched, *([beside] if beside is not None else [])]
        try:
            for session in sessions:
                for _ in range(warmup):
                    session.run(samples[0])
            times, counted = times_of(sessions, samples, runs, threads, clock)
        finally:
            events = watched.end_profiling()
        each = split(events)[warmup:]
        return _Timed(times, [each[run] for run in counted], load.load(saved))


def _join(model: Model, nodes: Sequence[Seen]) -> list[Any]:
    """The node of the saved graph that each entry of the profile is about.

    ORT names an unnamed node `Op_index` in the profile. Nodes of one name, and unnamed ones of one type, are taken in
    the order of their execution, which is the order in which ORT saves them.

    Raises:
        ModelError: there is none (a fault of ours, or an ORT that writes other profiles).
    """
    bodies: dict[int | None, list[tuple[walk.Path, Any]]] = {}
    found: dict[int, tuple[walk.Path, Any]] = {}
    bodies[None] = [((), node) for node in model.graph.nodes]
    paths = dict(walk.graphs(model.graph))
    for seen in nodes:
        scope = bodies.get(id(seen.parent) if seen.parent is not None else None)
        if scope is None:
            assert seen.parent is not None  # the main graph is always there
            path, owner = found[id(seen.parent)]
            scope = bodies[id(seen.parent)] = [
                (inner, node)
                for inner, graph in paths.items()
                if inner[:-1] == path and any(graph is value for value in owner.attrs.values())
                for node in graph.nodes
            ]
        at = next((i for i, (_, n) in enumerate(scope) if n.name == seen.event and n.op == seen.op), None)
        if at is None and seen.event.startswith(f"{seen.op}_"):
            at = next((i for i, (_, n) in enumerate(scope) if not n.name and n.op == seen.op), None)
        if at is None:
            raise ModelError(
                f"the profile names a {seen.op} {seen.event} that is not in ONNX Runtime's optimized graph"
            )
        found[id(seen)] = scope.pop(at)
    return [found[id(seen)][1] for seen in nodes]


def _inputs(node: Any, seen: Sequence[Typed]) -> tuple[Typed, ...]:
    """One entry per slot: constants from the graph (ORT leaves prepacked ones out), variables from the profile."""
    slots: list[Typed | None] = []
    for tensor in node.inputs:
        values = walk.constant_array(tensor)
        if values is not None:
            kind = str(values.dtype)
            slots.append((_ORT_NAMES.get(kind, kind), tuple(int(d) for d in values.shape)))
        else:
            slots.append(None if tensor.name else ABSENT)
    left, rest = slots.count(None), list(seen)
    found: list[Typed] = []
    for slot in slots:
        if slot is None:
            left -= 1
            found.append(rest.pop(0) if rest else ABSENT)
            continue
        if slot != ABSENT and len(rest) > left and rest[0] == slot:
            rest.pop(0)
        found.append(slot)
    return tuple(found)


def _outputs(node: Any, seen: Sequence[Typed]) -> tuple[Typed, ...]:
    rest = list(seen)
    return tuple(rest.pop(0) if t.name and rest else ABSENT for t in node.outputs)


def _midmean(values: Sequence[float]) -> float:
    """Mean of the middle half.

    >>> _midmean([1.0, 2.0, 4.0, 90.0])
    3.0
    """
    ordered = sorted(values)
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def _lower(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.25))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
