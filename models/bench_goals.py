"""What the bench is to show: how near each model is to its kernel limit, and the goals, each met or missed.

Everything here is a function of bench.json, as in `bench_tables`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench_tables import markdown, table

Json = Mapping[str, Any]

OURS = ("effort-default", "onnxq")
"""Kinds that the goals are about, the first that was measured counts."""

ALSO = {"minilm-l6": "metric.py:WordSimSpearman"}
"""Model -> metric that a goal names besides that of its job."""

LENGTHS = {"minilm-l6": 128}
"""Model -> tokens that its speed is measured with: its texts, repeated. The evaluation samples come in their own."""

POINTS = 0.005
"""Largest drop of a score; of correlations and F1 the share of the float score."""

RELATIVE = ("Spearman", "Pearson", "F1", "Correlation")
LEAST_ITEMS = 1000
LEAST_SPEED, OVER_PEER, PEER_DROP = 1.0, 1.05, 0.01
SPEEDS = {"efficientnet-lite0": 1.95, "yolox-ddddocr": 2.5, "ppocr-rec": 1.8, "ppocr-cls": 1.4, "minilm-l6": 2.0}
"""Model -> how many times as fast as float with one thread."""

SPEED_DROP = {"ppocr-rec": 0.01, "ppocr-cls": 0.01}
"""Model -> largest drop that its speed may cost."""

ALSO_DROP = {"minilm-l6": 0.005}
NEAR, EXPLAINED = 0.85, 0.05
"""Least share of the kernel limit; where it is less, the largest share of the time that nothing is known of."""

FORETOLD = 0.15
SECONDS = {"effort-default": 90.0, "effort-fast": 20.0}
TIMED = "efficientnet-lite0"

MET, MISSED, OPEN = "met", "**missed**", "not measured"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One goal for one model: what was found, and `MET`, `MISSED` or `OPEN`."""

    goal: str
    model: str
    found: str
    verdict: str


def report(bench: Json) -> str:
    """The tables for the README, the nearness table and the goals."""
    parts = [markdown(bench).rstrip("\n")]
    near = [row for name, entry in bench["models"].items() for row in _near_rows(name, entry)]
    if near:
        heads = ["model", "threads", "form", "kernel limit, ms", "measured, ms", "reached", "predicted off by"]
        parts += [
            "**How near the kernel limit** (the faster kernel of each heavy operator, all else free; of "
            "`onnxq quantize --effort default`, as its report says)",
            table([*heads, "not explained", "most is lost by"], near, numbers=3),
        ]
    found = list(lines(bench))
    counts = {v: sum(line.verdict == v for line in found) for v in (MET, MISSED, OPEN)}
    parts += [
        f"**Goals**: {counts[MET]} met, {counts[MISSED]} missed, {counts[OPEN]} not measured",
        table(["goal", "model", "found", ""], [[line.goal, line.model, line.found, line.verdict] for line in found]),
    ]
    return "\n\n".join(parts) + "\n"


def _near_rows(name: str, entry: Json) -> Iterator[list[str]]:
    for one in _accounts(entry):
        causes = ", ".join(f"{c['name']} {c['ms']:.3f} ms" for c in one["causes"][:-1][:3])
        yield [
            name,
            str(one["threads"]),
            one["form"],
            f"{one['limit_ms']:.3f}",
            f"{one['measured_ms']:.3f}",
            f"{100 * float(one['nearness']):.0f} %",
            f"{100 * float(one['deviation']):+.1f} %",
            f"{100 * _unexplained(one):+.1f} %",
            causes,
        ]


def lines(bench: Json) -> Iterator[Line]:
    """Every goal for every model that was measured."""
    models: Json = bench["models"]
    for name, entry in models.items():
        yield _score(name, entry)
    for name, entry in models.items():
        yield from _never_slower(name, entry)
    for name, entry in models.items():
        yield from _over_peer(name, entry)
    for name, entry in models.items():
        yield from _near(name, entry)
    for name in SPEEDS:
        if name in models:
            yield _speed(name, models[name])
    for name in ALSO:
        if name in models:
            yield _also(name, models[name])
    for name, entry in models.items():
        yield from _foretold(name, entry)
    if TIMED in models:
        for kind, limit in SECONDS.items():
            yield _seconds(kind, limit, models[TIMED])


def _score(name: str, entry: Json) -> Line:
    goal = f"score within {100 * POINTS:g} points (correlations, F1: {100 * POINTS:g} %)"
    metric = _metric(entry, _ours(entry))
    if metric is None:
        return Line(goal=goal, model=name, found="no labels" if _quality(entry) else "–", verdict=OPEN)
    relative = any(word in metric["name"] for word in RELATIVE)
    limit = POINTS * abs(metric["reference"]) if relative else POINTS
    few = "" if metric["samples"] >= LEAST_ITEMS else f", only {metric['samples']} items"
    found = f"{_drop(metric)}, at most {limit:.4f}{few}"
    return Line(goal=goal, model=name, found=found, verdict=_verdict(metric["drop"] <= limit + 1e-12))


def _drop(metric: Json) -> str:
    low, high = (metric["interval"][end] for end in ("low", "high"))
    return f"drop {metric['drop']:+.4f} [{low:+.4f}, {high:+.4f}]"


def _never_slower(name: str, entry: Json) -> Iterator[Line]:
    goal = f"never below {LEAST_SPEED:.1f} times float"
    for threads, speed in _speeds(entry, _ours(entry)):
        yield Line(goal=goal, model=name, found=f"{speed:.2f}, {threads}", verdict=_verdict(speed >= LEAST_SPEED))
    if not list(_speeds(entry, _ours(entry))):
        yield Line(goal=goal, model=name, found="–", verdict=OPEN)


def _over_peer(name: str, entry: Json) -> Iterator[Line]:
    """Against the fastest file of ONNX Runtime's that keeps its score; without such a file there is no goal. The ratio
    is that of their times in the same turns; of results that do not have it, the quotient of the speed-ups.

    Beside it what a model would reach that takes its kernel limit and no more: where both are below the goal, no
    placement meets it.
    """
    exact = []
    for kind in entry["cost"]:
        metric = _metric(entry, kind) if kind.startswith("ort-") else None
        if metric is not None and metric["drop"] <= PEER_DROP:
            exact.append(kind)
    peers: dict[str, tuple[float, str]] = {}
    for kind in exact:
        for threads, speed in _speeds(entry, kind):
            peers[threads] = max((speed, kind), peers.get(threads, (0.0, "")))
    nearness = {_threads(one["threads"]): float(one["nearness"]) for one in _accounts(entry)}
    for threads, one in _timed(entry, _ours(entry)):
        if threads in peers:
            speed, (other, kind) = one["speedup"], peers[threads]
            paired = one.get("over", {}).get(kind)
            ratio = speed / other if paired is None else paired["ratio"]
            spread = "" if paired is None else f" [{float(paired['low']):.2f}, {float(paired['high']):.2f}]"
            found = f"{speed:.2f} to {other:.2f}: {ratio:.2f}{spread} times, {threads}"
            if nearness.get(threads):
                found += f" (at the kernel limit {ratio / nearness[threads]:.2f})"
            goal = f"{OVER_PEER:g} times ONNX Runtime's own, where that is within 1 point"
            yield Line(goal=goal, model=name, found=found, verdict=_verdict(ratio >= OVER_PEER))


def _near(name: str, entry: Json) -> Iterator[Line]:
    goal = f"{100 * NEAR:.0f} % of the kernel limit, or every lost millisecond named"
    accounts = _accounts(entry)
    for one in accounts:
        near, rest = float(one["nearness"]), _unexplained(one)
        found = f"{100 * near:.0f} %, {100 * (1 - near - rest):.0f} % named, {100 * rest:.1f} % not"
        good = near >= NEAR or abs(rest) <= EXPLAINED
        yield Line(goal=goal, model=name, found=f"{found}, {_threads(one['threads'])}", verdict=_verdict(good))
    if not accounts:
        yield Line(goal=goal, model=name, found="–", verdict=OPEN)


def _speed(name: str, entry: Json) -> Line:
    drop = SPEED_DROP.get(name)
    length = f" with {LENGTHS[name]} tokens" if name in LENGTHS else ""
    goal = f"{SPEEDS[name]:g} times float{length}{'' if drop is None else f', drop at most {drop:g}'}"
    speed = dict(_speeds(entry, _ours(entry))).get(_threads(1))
    metric = _metric(entry, _ours(entry))
    if speed is None or (drop is not None and metric is None):
        return Line(goal=goal, model=name, found="–", verdict=OPEN)
    exact = drop is None or (metric is not None and metric["drop"] <= drop)
    told = "" if drop is None or metric is None else f", {_drop(metric)}"
    return Line(goal=goal, model=name, found=f"{speed:.2f}{told}", verdict=_verdict(speed >= SPEEDS[name] and exact))


def _also(name: str, entry: Json) -> Line:
    goal = f"{ALSO[name].rpartition(':')[2]} within {ALSO_DROP[name]:g}"
    metric = (_quality(entry) or {}).get("also")
    if metric is None:
        return Line(goal=goal, model=name, found="–", verdict=OPEN)
    return Line(goal=goal, model=name, found=_drop(metric), verdict=_verdict(metric["drop"] <= ALSO_DROP[name]))


def _foretold(name: str, entry: Json) -> Iterator[Line]:
    goal = f"predicted within {100 * FORETOLD:.0f} % of measured"
    accounts = _accounts(entry)
    for one in accounts:
        told = "predicted" if one["predicted_ms"] is not None else "profile, nothing was predicted,"
        found = f"{told} {100 * float(one['deviation']):+.1f} %, {_threads(one['threads'])}"
        yield Line(goal=goal, model=name, found=found, verdict=_verdict(abs(float(one["deviation"])) <= FORETOLD))
    if not accounts:
        yield Line(goal=goal, model=name, found="–", verdict=OPEN)


def _seconds(kind: str, limit: float, entry: Json) -> Line:
    goal = f"`onnxq quantize --effort {kind.removeprefix('effort-')}` under {limit:g} s"
    cost = entry["cost"].get(kind)
    if cost is None or cost["error"] or not cost["runs"]:
        return Line(goal=goal, model=TIMED, found=cost["error"] if cost else "–", verdict=OPEN)
    seconds = median(r["seconds"] for r in cost["runs"])
    stages = sorted(cost["runs"][-1]["stages"].items(), key=lambda s: -s[1])[:3]
    most = ", ".join(f"{stage} {s:.1f} s" for stage, s in stages)
    return Line(goal=goal, model=TIMED, found=f"{seconds:.1f} s ({most})", verdict=_verdict(seconds < limit))


def _verdict(good: bool) -> str:
    return MET if good else MISSED


def _ours(entry: Json) -> str:
    """The kind that stands for onnxq."""
    return next((k for k in OURS if k in entry["cost"] and not entry["cost"][k]["error"]), OURS[0])


def _quality(entry: Json) -> Json | None:
    found: Json | None = entry["quality"].get(_ours(entry))
    return None if found is None or found["error"] else found


def _metric(entry: Json, kind: str) -> Json | None:
    found = entry["quality"].get(kind)
    metric: Json | None = None if found is None or found["error"] else found["metric"]
    return metric


def _speeds(entry: Json, kind: str) -> Iterator[tuple[str, float]]:
    """Speed-up by number of threads."""
    yield from ((threads, one["speedup"]) for threads, one in _timed(entry, kind))


def _timed(entry: Json, kind: str) -> Iterator[tuple[str, Json]]:
    """What the clock said, by number of threads."""
    for count, found in entry["latency"].items():
        one = found.get("candidates", {}).get(kind)
        if one is not None:
            yield _threads(int(count)), one


def _accounts(entry: Json) -> Sequence[Json]:
    cost = entry["cost"].get("effort-default")
    if cost is None or cost["error"]:
        return ()
    found: Sequence[Json] = cost["values"].get("account", ())
    return found


def _unexplained(account: Json) -> float:
    """Share of the time that neither the limit nor a cause explains."""
    rest, measured = float(account["causes"][-1]["ms"]), float(account["measured_ms"])
    return rest / measured if measured else math.nan


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
