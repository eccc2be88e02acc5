"""Where the time of the placed model goes: lines for the terminal, a stacked bar and tables for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxq.report import plots
from onnxq.report.elements import Cell, Marked, Number, figure, number, paragraphs, table
from onnxq.report.section import Section
from onnxq.validate.result import Account, Cause

CAUSES_SAID = 4
"""Causes in the terminal's line; all are in the page and in the JSON form."""

CAUSES_DRAWN = 6
"""Causes with a colour of their own."""

FAR = 0.15
"""Share by which a prediction may miss before a word is said about it."""

Document = Mapping[str, Any]


def sections(accounts: Sequence[Account]) -> Iterator[Section]:
    """Three lines for each number of threads."""
    rows: list[tuple[str, str]] = []
    for one in accounts:
        using = _threads(one.threads)
        rows += [
            (f"kernel limit, {using}", f"{_ms(one.limit_ms)}, {reached(one.nearness)} ({_clock(one)})"),
            ("lost", _losses(one.causes)),
            ("predicted", _prediction(one)),
        ]
    if rows:
        yield Section(title="Where the time goes", rows=tuple(rows))


def reached(nearness: float) -> str:
    """How near the kernel limit is.

    >>> reached(0.879), reached(float("nan"))
    ('88 % reached', 'not reached by anything')
    """
    return "not reached by anything" if math.isnan(nearness) else f"{nearness:.0%} reached".replace("%", " %")


def off(deviation: float) -> str:
    """A prediction against the clock.

    >>> off(-0.014), off(0.2), off(0.0001)
    ('1.4 % less than measured', '20.0 % more than measured', 'as measured')
    """
    if math.isnan(deviation) or abs(deviation) < 0.0005:
        return "as measured"
    return f"{abs(deviation) * 100:.1f} % {'more' if deviation > 0 else 'less'} than measured"


def _clock(one: Account) -> str:
    return f"{_ms(one.measured_ms)} {'measured' if one.timed else 'by the costs, not timed'}, {one.form}"


def _losses(causes: Sequence[Cause]) -> str:
    *named, rest = causes
    said = [f"{c.name} {_ms(c.ms)}{f' ({c.largest[0]})' if c.largest else ''}" for c in named[:CAUSES_SAID]]
    more = named[CAUSES_SAID:]
    if more:
        said.append(f"{_ms(math.fsum(c.ms for c in more))} for {len(more)} other causes")
    return ", ".join([*said, f"{rest.name} {_ms(rest.ms)}"])


def _prediction(one: Account) -> str:
    if one.predicted_ms is None:
        return f"nothing; its profile adds up to {_ms(one.profiled_ms)}, {off(one.deviation)}"
    care = ": read the costs with care" if abs(one.deviation) > FAR else ""
    return f"{_ms(one.predicted_ms)} before it ran, {off(one.deviation)}{care}"


def _ms(value: float) -> str:
    """Milliseconds with three digits that tell.

    >>> _ms(12.345), _ms(0.1), _ms(-0.0123), _ms(0)
    ('12.3 ms', '0.100 ms', '-0.012 ms', '0.000 ms')
    """
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value + 0.0:.{digits}f} ms"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


# the page


def part(doc: Document) -> str:
    """The bar, what it is made of, and every node and conversion above the limit."""
    found = doc.get("account") or []
    if not found:
        return ""
    html = paragraphs(
        [
            "The kernel limit is what the heavy operators take in the faster of their kernels, all else free. What is "
            "above it is named, and adds up to the time of one run; what the profile does not explain (caches, "
            "threads, noise) is a line of its own, and is negative where kernels were quicker in the race than under "
            "the profiler."
        ]
    )
    html += figure(plots.draw("account", plots.account(_bars(found), _marks(found))), _alternative(found))
    rows: list[tuple[Cell, ...]] = [
        (
            _threads(a["threads"]),
            str(a["form"]),
            _cell(a["limit_ms"]),
            _cell(a["measured_ms"]),
            _percent(a["nearness"]),
            _cell(a["predicted_ms"]),
            _cell(a["profiled_ms"]),
            _percent(a["deviation"], signed=True),
        )
        for a in found
    ]
    heads = (
        "run with",
        "form",
        "kernel limit, ms",
        "measured, ms",
        "reached",
        "predicted, ms",
        "profile, ms",
        "off by",
    )
    html += table("account-runs", heads, rows, caption="kernel limit, prediction and clock")
    if any(not a["timed"] for a in found):
        html += paragraphs(["Nothing was timed here: what is called measured is the sum of the costs given."])
    parts: list[tuple[Cell, ...]] = [
        (
            _threads(a["threads"]),
            Marked(c["name"], "name"),
            _cell(c["ms"]),
            _percent(c["ms"] / a["measured_ms"] if a["measured_ms"] else math.nan),
            Number(c["parts"], str(c["parts"])),
            Marked(", ".join(c["largest"]) + (", ..." if c["parts"] > len(c["largest"]) else ""), "name"),
        )
        for a in found
        for c in [{"name": "kernel limit", "ms": a["limit_ms"], "parts": 0, "largest": ()}, *a["causes"]]
    ]
    columns = ("run with", "part", "ms", "of the time", "nodes", "the largest")
    html += table("account-causes", columns, parts, caption="what one run is made of")
    lost: list[tuple[Cell, ...]] = [
        (
            _threads(a["threads"]),
            one["cause"],
            Marked(one["name"], "name"),
            one["op"],
            _cell(one["ms"], 4),
            one["why"],
        )
        for a in found
        for one in a["lost"]
    ]
    if not lost:
        return html
    every = ("run with", "cause", "node or tensor", "operator", "ms", "why")
    told = "every node and conversion above the limit"
    return f"{html}<h3>Node by node</h3>{table('account-lost', every, lost, caption=told)}"


def _cell(value: Any, digits: int = 3) -> Number:
    found = number(value)
    return Number(found, "-" if math.isnan(found) else f"{found:.{digits}f}")


def _percent(value: Any, *, signed: bool = False) -> Number:
    found = number(value)
    return Number(found, "-" if math.isnan(found) else f"{found * 100:{'+' if signed else ''}.1f} %")


def _drawn(found: Sequence[Document]) -> list[str]:
    """Causes with a colour, the largest over all numbers of threads first."""
    sums: dict[str, float] = {}
    for a in found:
        for c in a["causes"][:-1]:
            sums[c["name"]] = sums.get(c["name"], 0.0) + c["ms"]
    return sorted(sums, key=lambda name: (-sums[name], name))[:CAUSES_DRAWN]


def _bars(found: Sequence[Document]) -> list[dict[str, Any]]:
    drawn = _drawn(found)
    rows = []
    for a in found:
        *causes, rest = a["causes"]
        parts = {"kernel limit": a["limit_ms"]}
        parts |= {name: sum(c["ms"] for c in causes if c["name"] == name) for name in drawn}
        others = [c["ms"] for c in causes if c["name"] not in drawn]
        if others:
            parts["other causes"] = math.fsum(others)
        if rest["ms"] > 0:
            parts[rest["name"]] = rest["ms"]
        using = _threads(a["threads"])
        rows += [
            {"threads": using, "part": name, "ms": ms, "rank": rank, "label": f"{name}: {ms:.3f} ms, {using}"}
            for rank, (name, ms) in enumerate(parts.items())
        ]
    return rows


def _marks(found: Sequence[Document]) -> list[dict[str, Any]]:
    rows = []
    for a in found:
        using, clock = _threads(a["threads"]), "measured" if a["timed"] else "by the costs"
        for what, ms in ((clock, number(a["measured_ms"])), ("predicted", number(a["predicted_ms"]))):
            if math.isfinite(ms):
                rows.append({"threads": using, "what": what, "ms": ms, "label": f"{what}: {ms:.3f} ms, {using}"})
    return rows


def _alternative(found: Sequence[Document]) -> str:
    told = []
    for a in found:
        largest = ", ".join(f"{c['name']} {_ms(c['ms'])}" for c in a["causes"][:3])
        told.append(
            f"{_threads(a['threads'])}: kernel limit {_ms(a['limit_ms'])} of {_ms(a['measured_ms'])}, "
            f"{reached(number(a['nearness']))}; above it {largest}"
        )
    predicted = any(a["predicted_ms"] is not None for a in found)
    short = ", the short one what was predicted" if predicted else ""
    return f"One run in parts. {'. '.join(told)}. The tall line is what was measured{short}."
