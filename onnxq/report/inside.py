"""Parts of the HTML report on the inside of the model: layer by layer, models that were tried, placement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxq.report import plots
from onnxq.report.content import count, decibels
from onnxq.report.elements import Marked, Number, figure, number, paragraphs, table
from onnxq.report.measured import Document, db_cell, figure_cell

POINTS = 1500
"""Tensors in the plot of layers: the worst of more."""

HIGH = 60.0
"""dB that stand at the top of that plot: more is as good as equal, and would flatten the rest."""


TOP = 3.0
"""dB at least by which a model that is equal to float stands above the others in the plot of models."""


def layers(doc: Document) -> str:
    """SQNR at each quantized tensor, and histograms of the worst."""
    found = doc.get("layers")
    if not found:
        return ""
    tensors = found["tensors"]
    if not tensors:
        return paragraphs(found.get("notes") or ["There is no quantized tensor to compare."])
    html = paragraphs(
        [
            f"Float model against quantized model at {len(tensors)} quantized tensors, on {found['samples']} samples, "
            f"optimizations off; it took {found['seconds']:.1f} s. 'Up to here' holds the errors of all layers before; "
            "what a tensor 'adds' is its own rounding and clipping alone, and says where a range is wrong."
        ]
    )
    html += _depth(tensors)
    rows = [
        (
            Number(i, str(i)),
            Marked(t["tensor"], "name"),
            t["op"],
            t["type"],
            db_cell(t["sqnr_db"]),
            db_cell(t["own_sqnr_db"]),
            figure_cell(t["clipped"], ".3%"),
            Number(number(t["low"]), f"{number(t['low']):.3g} to {number(t['high']):.3g}"),
            Number(number(t["least"]), f"{number(t['least']):.3g} to {number(t['greatest']):.3g}"),
        )
        for i, t in enumerate(tensors)
    ]
    heads = ("#", "tensor", "made by", "type", "up to here", "adds", "clipped", "range", "values seen")
    html += table("layers-table", heads, rows, caption="SQNR layer by layer")
    if found.get("histograms"):
        html += "<h3>Worst tensors</h3>" + paragraphs(
            [
                "Those that add most error, in the float model; elements on a logarithmic axis. The band is the range "
                "that 8 bits cover: values beyond are clipped, and a band much wider than the values wastes steps."
            ]
        )
        html += f'<div class="plots">{"".join(_histogram(i, h) for i, h in enumerate(found["histograms"]))}</div>'
    return html


def _depth(tensors: Sequence[Mapping[str, Any]]) -> str:
    worst = sorted(range(len(tensors)), key=lambda i: number(tensors[i]["sqnr_db"]))[:POINTS]
    rows = []
    for series, key in (("up to here", "sqnr_db"), ("adds", "own_sqnr_db")):
        for i in sorted(worst):
            if math.isfinite(db := number(tensors[i][key])):
                label = f"{tensors[i]['tensor']} ({tensors[i]['op']}): {series} {db:.1f} dB"
                rows.append({"position": i, "db": min(db, HIGH), "series": series, "label": label})
    if not rows:
        return paragraphs(["All tensors are equal."])
    least = tensors[worst[0]]
    alone = min(tensors, key=lambda t: number(t["own_sqnr_db"]))
    told = (
        f"SQNR over the depth of the network, {HIGH:g} dB and more at the top. Lowest up to there: "
        f"{decibels(number(least['sqnr_db']))} at "
        f"{least['tensor']}. The tensor that adds most: {alone['tensor']} ({decibels(number(alone['own_sqnr_db']))})."
    )
    return figure(plots.draw("layers", plots.layers(rows)), told)


def _histogram(index: int, one: Mapping[str, Any]) -> str:
    edges, counts = one["edges"], one["counts"]
    low, high = number(one["low"]), number(one["high"])
    bars = [
        {"from": a, "to": b, "count": n, "label": f"{n} elements from {a:.4g} to {b:.4g}"}
        for a, b, n in zip(edges, edges[1:], counts, strict=False)
        if n
    ]
    total = sum(counts)
    outside = sum(
        n for a, b, n in zip(edges, edges[1:], counts, strict=False) if (a + b) / 2 < low or (a + b) / 2 > high
    )
    where = "all calibration samples" if one["source"] == "calibration" else "the samples compared here"
    svg = plots.draw(f"histogram{index}", plots.histogram(bars, low, high))
    told = (
        f"{one['tensor']}: range {low:.4g} to {high:.4g}, values {edges[0]:.4g} to {edges[-1]:.4g} at most, "
        f"about {100 * outside / max(total, 1):.2g} % of {count(total)} elements beyond the range ({where})."
    )
    return figure(svg, f"Histogram of {told}", told)


def pareto(doc: Document) -> str:
    """The models that were tried: how fast against how exact."""
    points = doc.get("pareto") or []
    if not points:
        return ""
    metric = ((doc.get("accuracy") or {}).get("metric") or {}).get("name", "the score")
    html = _front(points, "drop", f"drop of {metric} (down: better)", _drop)
    html += _front(points, "sqnr", "SQNR of the outputs, dB (up: better)", _sqnr)
    cells = [
        (
            Marked("chosen", "good") if p.get("chosen") else "",
            str(p["label"]),
            figure_cell(p.get("speedup"), ".3g"),
            Number(s := number(p.get("seconds")), "-" if math.isnan(s) else f"{s * 1e3:.3g} ms"),
            figure_cell(p.get("drop")),
            db_cell(p.get("sqnr_db")),
            db_cell(p.get("predicted_sqnr_db")),
            _told(p),
        )
        for p in points
    ]
    heads = ("chosen", "model", "speed-up", "one run", "drop", "SQNR", "SQNR by noise", "known by")
    return html + table("pareto-table", heads, cells, caption="models tried")


def _told(point: Document) -> str:
    """Where its figures come from."""
    if not point.get("timed", True):
        return "judged, time by costs" if _judged(point) else "costs and noise"
    return "clock, judged" if _judged(point) else "clock"


def _judged(point: Document) -> bool:
    return point.get("drop") is not None or point.get("sqnr_db") is not None


def _drop(point: Document) -> tuple[float, bool]:
    """How exact, and was it judged?"""
    return number(point.get("drop")), True


def _sqnr(point: Document) -> tuple[float, bool]:
    judged = point.get("sqnr_db") is not None
    return number(point["sqnr_db"] if judged else point.get("predicted_sqnr_db")), judged


def _front(
    points: Sequence[Document], name: str, title: str, exactness: Callable[[Document], tuple[float, bool]]
) -> str:
    """A picture of the points that speed and exactness are known of; "" of less than two."""
    fast = _most_known(points, "speedup", "seconds")
    right, up = (1 if fast == "speedup" else -1), (-1 if name == "drop" else 1)
    seen = [(p, number(p.get(fast)), *exactness(p)) for p in points]
    seen = [s for s in seen if math.isfinite(s[1]) and not math.isnan(s[2])]
    known = [y for _, _, y, _ in seen if math.isfinite(y)]
    if len(seen) < 2 or not known:
        return ""
    top = max(known) + max(0.1 * (max(known) - min(known)), TOP)
    rows = []
    for p, x, y, judged in seen:
        equal = math.isinf(y)
        value = "as float" if equal else f"{y:.1f} dB" if name == "sqnr" else f"drop {y:.4g}"
        speed = f"{x:.3g} times as fast" if fast == "speedup" else f"{x * 1e3:.3g} ms"
        how = "measured" if p.get("timed", True) and judged else "judged, time by costs" if judged else "predicted"
        taken = bool(p.get("chosen"))
        rows.append(
            {
                "x": x, "y": top if equal else y, "kind": how, "chosen": "chosen" if taken else "other",
                "label": f"{p['label']}: {speed}, {value} ({how})",
                "text": f"chosen: {p['label']}" if taken else "as float" if equal else "",
            }
        )  # fmt: skip
    for row in rows:
        row["front"] = not any(_beats(other, row, right, up) for other in rows)
    rows = _once(rows)
    titles = {"speedup": "times as fast as float (right: faster)", "seconds": "seconds for one run (left: faster)"}
    chosen = ", ".join(str(p["label"]) for p in points if p.get("chosen")) or "none of them"
    how_many = f"{len(seen)} of {len(points)}" if len(seen) < len(points) else str(len(points))
    kinds = Counter(r["kind"] for r in rows)
    told = (
        f"{how_many} models ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}), speed against "
        f"{'the score' if name == 'drop' else 'SQNR'}; chosen: {chosen}. The line joins those that none beats."
    )
    return figure(plots.draw(f"pareto-{name}", plots.pareto(rows, titles[fast], title)), told)


def _once(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several equals only one has a text: two forms of float lie on each other."""
    said: set[float] = set()
    for row in rows:
        if row["text"] and row["chosen"] != "chosen":
            if row["y"] in said:
                row["text"] = ""
            said.add(row["y"])
    return list(rows)


def _most_known(points: Sequence[Mapping[str, Any]], *keys: str) -> str:
    """The key that most points have a finite number for; the first of equals."""
    return max(keys, key=lambda key: sum(math.isfinite(number(p.get(key))) for p in points))


def _beats(one: Mapping[str, Any], other: Mapping[str, Any], right: int, up: int) -> bool:
    """At least as good on both, and better on one."""
    gains = (right * (one["x"] - other["x"]), up * (one["y"] - other["y"]))
    return bool(min(gains) >= 0 and max(gains) > 0)


def placement(doc: Document) -> str:
    """What costs decided, unit by unit."""
    found = doc.get("placement") or []
    if not found:
        return ""
    rows = [
        (
            Marked(p["form"], p["form"] if p["form"] in ("int8", "float") else "name"),
            Marked(p["unit"], "name"),
            figure_cell(p.get("float_ms"), ".3g"),
            figure_cell(p.get("int8_ms"), ".3g"),
            figure_cell(p.get("saving_ms"), ".3g"),
            str(p.get("why", "")),
        )
        for p in found
    ]
    heads = ("chosen", "unit", "float, ms", "int8, ms", "saves, ms", "why")
    return table("placement-table", heads, rows, caption="what was decided about each unit, by its cost in each form")
