"""Parts of the HTML report on what was measured: verdict, size, speed, accuracy, coverage. Read from the JSON form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from onnxq.report import plots
from onnxq.report.content import count, decibels, size
from onnxq.report.elements import Cell, Marked, Number, figure, items, number, paragraphs, table

Document = Mapping[str, Any]

OPS_PLOTTED = 16
"""Operator types in the plot of coverage."""

MOST_DETAILS = 100
"""Sentences behind the checks of a gate."""

_MOODS = {"pass": "good", "fail": "bad", "inconclusive": "unsure"}


def outcome(judged: Mapping[str, Any]) -> str:
    """ "pass", "fail" or "inconclusive" of a verdict or of one of its checks."""
    said = judged.get("outcome")
    return str(said) if said is not None else "pass" if judged.get("passed") else "fail"


def mood(said: str) -> str:
    """The CSS class of an outcome."""
    return _MOODS.get(said, "unsure")


def db_cell(value: Any) -> Number:
    """dB, sorted by value."""
    found = number(value)
    return Number(found, "-" if value is None else decibels(found))


def figure_cell(value: Any, form: str = ".4g") -> Number:
    """A number, or - for what is not known."""
    found = number(value)
    return Number(found, "-" if math.isnan(found) else f"{found:{form}}")


def verdict(doc: Document) -> str:
    """Every check of a gate, where failures come from, and what stands behind the checks that are not kept."""
    found = doc.get("verdict")
    if not found:
        return ""
    checks = found["checks"]
    rows = [
        (Marked(outcome(c), mood(outcome(c))), str(c.get("group") or ""), str(c.get("sentence", c.get("name", ""))))
        for c in checks
    ]
    html = table("checks", ("verdict", "about", "what was checked"), rows, caption="checks of the gate")
    if found.get("causes"):
        html += "<h3>Where it comes from</h3>" + items([str(cause) for cause in found["causes"]])
    behind = [f"{c.get('name')}: {d}" for c in checks if outcome(c) != "pass" for d in c.get("details") or ()]
    if behind:
        html += "<h3>Behind it</h3>" + items(behind[:MOST_DETAILS])
    return html


def comparison(doc: Document) -> str:
    """Size and speed."""
    rows: list[tuple[Cell, ...]] = []
    sizes, latencies = doc.get("sizes"), doc.get("latency") or []
    if sizes:
        one, two = sizes["reference"], sizes["candidate"]
        rows.append(("size of the files", Number(one, size(one)), Number(two, size(two)), _ratio(one, two, "smaller")))
    bars = []
    for one in latencies:
        using = threads(one["threads"])
        a, b = one["reference_ms"], one["candidate_ms"]
        change = f"{one['speedup']:.2f} times as fast ({one['speedup_low']:.2f} to {one['speedup_high']:.2f})"
        if span := one.get("speedup_interval"):
            low, high = number(span["low"]), number(span["high"])
            change += f", {100 * span['level']:g} % interval of the median {low:.3g} to {high:.3g}"
        noisy = ", noisy: the machine was busy" if one.get("noisy") else ""
        rows.append((f"latency, {using}", Number(a, f"{a:.3g} ms"), Number(b, f"{b:.3g} ms"), change + noisy))
        bars += [
            {"threads": using, "kind": kind, "ms": ms, "label": f"{kind}, {using}: {ms:.3g} ms"}
            for kind, ms in (("float", a), ("int8", b))
        ]
    if not rows:
        return ""
    html = table("sizes", ("measure", "float", "int8", "change"), rows, caption="size and speed, float against int8")
    if bars:
        told = "; ".join(
            f"{threads(one['threads'])}: float {one['reference_ms']:.3g} ms, int8 {one['candidate_ms']:.3g} ms"
            for one in latencies
        )
        html += figure(plots.draw("latency", plots.latency(bars)), f"Median latency in bars. {told}.")
    return html


def _ratio(one: float, two: float, word: str) -> str:
    if not one or not two:
        return ""
    return f"{one / two:.2f} times {word}" if one >= two else f"{two / one:.2f} times larger"


def threads(number_of: int) -> str:
    """In words."""
    return "1 thread" if number_of == 1 else f"{number_of} threads"


def accuracy(doc: Document) -> str:
    """The labelled score with its interval, and every output."""
    found = doc.get("accuracy")
    if not found:
        return ""
    samples, data = found["samples"], str(found["data"])
    html = paragraphs([f"On {data}." if data.startswith(f"{samples} ") else f"On {samples} of {data}."])
    metric = found.get("metric")
    if metric:
        html += _metric(doc, metric)
    rows = [
        (
            Marked(o["name"], "name"),
            db_cell(o.get("sqnr_db")),
            figure_cell(o.get("cosine"), ".5f"),
            figure_cell(o.get("max_abs"), ".3g"),
            figure_cell(o.get("absmax"), ".3g"),
            figure_cell(_share(o), ".2%"),
            f"{o['worst_sample']} ({decibels(number(o['worst_sqnr_db']))})" if o.get("worst_sample") else "",
        )
        for o in found["outputs"]
    ]
    heads = ("output", "SQNR", "cosine", "largest difference", "largest value", "agreement", "worst sample")
    return html + "<h3>Outputs</h3>" + table("outputs", heads, rows, caption="outputs, int8 against float")


def _share(output: Mapping[str, Any]) -> Any:
    top1 = output.get("top1_agreement")
    return output.get("agreement") if top1 is None else top1


def _metric(doc: Document, metric: Mapping[str, Any]) -> str:
    drop, low, high = (number(v) for v in (metric["drop"], metric["interval"]["low"], metric["interval"]["high"]))
    level = f"{100 * number(metric['interval'].get('level', 0.95)):g} %"
    told = (
        f"{metric['name']}: float {number(metric['reference']):.5g}, int8 {number(metric['candidate']):.5g}; the drop "
        f"is {drop:.4g}, its {level} interval {low:.4g} to {high:.4g}"
    )
    extra = []
    if metric.get("mcnemar_p") is not None:
        extra.append(
            f"Only float right: {metric['only_reference']} samples; only int8 right: {metric['only_candidate']}; "
            f"McNemar p = {number(metric['mcnemar_p']):.2g}."
        )
    if not all(map(math.isfinite, (drop, low, high))):
        return paragraphs([f"{told}.", *extra])
    checks = (doc.get("verdict") or {}).get("checks", ())
    limits = [number(c.get("limit")) for c in checks if metric["name"] in str(c.get("name")) and "drop" in c["name"]]
    limit = limits[0] if limits and math.isfinite(limits[0]) else None
    svg = plots.draw("interval", plots.interval(drop, low, high, told, limit))
    return figure(svg, f"{told}.") + paragraphs(extra)


def coverage(doc: Document) -> str:
    """Which operators run in integer kernels, and why the others do not."""
    found = doc.get("coverage") or (doc.get("model") or {}).get("coverage")
    if not found:
        return ""
    ops = found["ops"]
    macs, share = found.get("macs", 0), number(found.get("mac_share"))
    part = "unknown, as the shapes are" if math.isnan(share) else f"{share:.1%} of {count(macs)}"
    html = paragraphs(
        [
            f"Multiply-accumulates in integer kernels of ONNX Runtime: {part}. Operators: "
            f"{found['integer_ops']} of {len(ops)}. Conversions (Q and DQ) that run: {found['conversions']}."
        ]
    )
    html += _bars(ops)
    order = sorted(ops, key=lambda o: (o["integer"], -(o["macs"] or 0)))  # what is float and heavy comes first
    rows = [
        (
            Marked("int8", "int8") if o["integer"] else Marked("float", "float"),
            o["op"],
            Marked("/".join([*o["path"], o["name"]]), "name"),
            Number(number(o["macs"]), "-" if o["macs"] is None else count(o["macs"])),
            o["kernel"],
            o["reason"],
        )
        for o in order
    ]
    heads = ("runs in", "operator", "name", "MACs", "kernel", "why it is float")
    return html + table("ops", heads, rows, caption="every operator, its kernel and the reason why it is float")


def _bars(ops: Sequence[Mapping[str, Any]]) -> str:
    kinds = Counter((o["op"], "int8" if o["integer"] else "float") for o in ops)
    totals = Counter(o["op"] for o in ops)
    if not totals:
        return ""
    top = [op for op, _ in totals.most_common(OPS_PLOTTED)]
    bars = [
        {"op": op, "kind": kind, "count": kinds[op, kind], "label": f"{kinds[op, kind]} of {totals[op]} {op} in {kind}"}
        for op in top
        for kind in ("int8", "float")
        if kinds[op, kind]
    ]
    told = ", ".join(f"{op} {kinds[op, 'int8']} of {totals[op]}" for op in top[:6])
    told += f" and {len(totals) - 6} more types" if len(totals) > 6 else ""
    more = "" if len(totals) <= len(top) else f" The {len(top)} most frequent of {len(totals)} types are shown."
    svg = plots.draw("coverage", plots.coverage(bars))
    return figure(svg, f"Operators in integer kernels, by type: {told}.{more}")
