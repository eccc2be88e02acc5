"""Sensitivities for people: tables for the terminal, a plot of the worst tensors as SVG, and a page around it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from onnxq.report import plots
from onnxq.report.content import decibels
from onnxq.report.elements import Marked, Number, figure, items, table
from onnxq.report.frame import frame, style
from onnxq.report.section import Section
from onnxq.sensitivity.result import SCHEMA, Sensitivity, TensorSensitivity

PLOTTED = 40
"""Tensors in the plot."""

NAME = 44
"""Letters of a name in the plot; of longer ones the end is shown, where exporters put what differs."""

PAGES = (".html", ".htm")
"""Suffixes of pages; others get the bare SVG."""


def sections(found: Sensitivity, top: int) -> list[Section]:
    """The tables: what everything costs, the loudest `top` tensors and ops, notes."""
    out = [_overview(found)]
    ranked = found.ranked
    if ranked:
        scored = found.score is not None
        heads = ("tensor", "kind", "op", "share", "alone", *(("drop",) if scored else ()))
        rest = any(t.rest is not None for t in ranked)
        rows = [
            (
                t.tensor,
                t.kind,
                t.op or "input",
                _about(_percent(t.share), sure) if not t.follows else "as before",
                _about(_level(found, _db(t.noise), t.noise), sure),
                *((_signed(_drop(t)),) if scored else ()),
                *((decibels(t.rest.sqnr_db) if t.rest is not None else "-",) if rest else ()),
            )
            for t in ranked[:top]
            for sure in (t.alone is not None,)
        ]
        out.append(
            Section(
                title=_title("Tensors", len(rows), len(ranked)),
                columns=(*heads, *(("without it",) if rest else ())),
                rows=tuple(rows),
                numbers=frozenset(range(3, 7)),
            )
        )
    units = sorted(found.units, key=lambda u: -u.noise)
    if units:
        guessed = {t.tensor for t in ranked if t.alone is None}
        lines = tuple(
            (
                u.node,
                u.op,
                _about(_level(found, _db(u.noise), u.noise), u.together is not None or guessed.isdisjoint(u.tensors)),
                str(len(u.tensors)),
            )
            for u in units[:top]
        )
        out.append(
            Section(
                title=_title("Ops, with all their tensors", len(lines), len(units)),
                columns=("node", "op", "together", "tensors"),
                rows=lines,
                numbers=frozenset({2, 3}),
            )
        )
    if found.notes:
        out.append(Section(title="Notes", rows=tuple((n,) for n in found.notes)))
    return out


def _overview(found: Sensitivity) -> Section:
    rows = [
        ("noise measured on", f"{found.samples} of {found.data}"),
        ("all tensors rounded", _level(found, found.total.sqnr_db, found.measured)),
        ("sum of single tensors", _level(found, _db(found.predicted), found.predicted)),
    ]
    if found.unmeasured:
        rows.append(("single tensors measured", f"{len(found.tensors) - found.unmeasured} of {len(found.tensors)}"))
    if len(found.total.outputs) > 1 or any(o.head for o in found.total.outputs):
        rows += [
            (f"output {o.name}", decibels(o.sqnr_db) if o.floating else f"{_percent(1 - o.relative)} equal")
            for o in found.total.outputs
        ]
    if found.score is not None:
        rows.append((f"{found.metric} in float", f"{found.score:.6g} on {found.eval_samples} of {found.eval_data}"))
        rows.append((f"{found.metric}, all rounded", f"{found.total.score:.6g}"))
    return Section(title="Output error by tensor", rows=tuple(rows))


def _title(what: str, shown: int, total: int) -> str:
    return f"{what}, the loudest {shown} of {total}" if shown < total else f"{what}, the loudest first"


def _db(noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return -10.0 * math.log10(noise) if math.isfinite(noise) else -math.inf


def _level(found: Sensitivity, db: float, noise: float) -> str:
    """dB, or without float outputs the share of elements that differ."""
    floating = any(o.floating for o in found.total.outputs)
    return decibels(db) if floating else f"{_percent(noise)} differ"


def _about(figure: str, sure: bool) -> str:
    """Says what is an estimate."""
    return figure if sure else f"about {figure}"


def _drop(tensor: TensorSensitivity) -> float | None:
    return None if tensor.alone is None else tensor.alone.drop


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0.0 else "< 0.1 %"


def _signed(drop: float | None) -> str:
    return "-" if drop is None else "0" if drop == 0.0 else f"{drop:+.4g}"


# the plot


def svg(found: Sensitivity) -> str:
    """A bar for each of the worst tensors, with a title, a description in words, and colours for dark and for light.

    Raises:
        UsageError: the library that draws is not installed.
    """
    told = f"<title>Output error by tensor</title><desc>{escape(alternative(found))}</desc>"
    variables = style().partition("* {")[0]  # the colours stand first
    drawn = _drawn(found).replace("<svg ", f'<svg role="img" aria-label="{escape(alternative(found))}" ', 1)
    return re.sub(r"(<svg [^>]*>)", rf"\1{told}<style>{variables}</style>", drawn, count=1)


def page(found: Sensitivity) -> str:
    """A page with the plot and the tables.

    Raises:
        UsageError: the library that draws is not installed.
    """
    parts = [("plot", "Output error by tensor", figure(_drawn(found), alternative(found)))]
    heads = ("tensor", "kind", "type", "op", "node", "noise", "share", "alone", "drop")
    rows = [
        (
            Marked(t.tensor, "name"), t.kind, t.type, t.op or "input", Marked(t.node, "name"),
            Number(t.noise, _about(f"{t.noise:.4g}", sure)),
            Number(t.share, "as before" if t.follows else _about(_percent(t.share), sure)),
            Number(_db(t.noise), _about(decibels(_db(t.noise)), sure)),
            Number(math.nan if t.alone is None or t.alone.drop is None else t.alone.drop, _signed(_drop(t))),
        )
        for t in found.ranked
        for sure in (t.alone is not None,)
    ]  # fmt: skip
    parts.append(("tensors", "Tensors", table("tensors", heads, rows, caption="quantized tensors, the loudest first")))
    units = [
        (Marked(u.node, "name"), u.op, Number(u.noise, f"{u.noise:.4g}"), Number(u.owned, f"{u.owned:.4g}"))
        for u in sorted(found.units, key=lambda u: -u.noise)
    ]
    columns = ("node", "op", "noise", "own part")
    parts.append(("ops", "Ops", table("ops", columns, units, caption="integer ops with all their tensors")))
    if found.notes:
        parts.append(("notes", "Notes", items(found.notes)))
    tiles = [
        f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in _overview(found).rows[1:3]
    ]
    return frame(
        "onnxq sensitivity",
        parts,
        about=f"noise measured on {found.samples} of {found.data}",
        made_from=f"sensitivities in the form {SCHEMA}",
        tiles=tiles,
    )


def write_plot(found: Sensitivity, path: Path) -> str:
    """What `path` is to hold: a page if it ends in .html, else the SVG."""
    return page(found) if path.suffix.lower() in PAGES else svg(found)


def alternative(found: Sensitivity) -> str:
    """What one sees in the plot, for those who do not see it."""
    worst = _plotted(found)
    if not worst:
        return "No tensor adds noise: there are no bars."
    named = ", ".join(f"{t.tensor} ({t.kind}) {_percent(t.share)}" for t in worst[:5])
    together = math.fsum(t.share for t in worst)
    words = (
        f"Bars: the share of the output noise that each of {len(worst)} of {len(found.tensors)} quantized tensors "
        f"causes alone, the loudest on top. Largest: {named}. Together they make {_percent(together)} of the sum."
    )
    return f"{words} {_blank(found)}" if found.unmeasured else words


def _plotted(found: Sensitivity) -> list[TensorSensitivity]:
    return [t for t in found.ranked if t.share > 0.0 and t.alone is not None][:PLOTTED]


def _blank(found: Sensitivity) -> str:
    return f"{found.unmeasured} of {len(found.tensors)} tensors were not measured and have no bar."


def _drawn(found: Sensitivity) -> str:
    spec = _bars(_plotted(found))
    return plots.draw("sensitivity", {**spec, "title": _blank(found)} if found.unmeasured else spec)


def _bars(worst: Sequence[TensorSensitivity]) -> dict[str, Any]:
    names = _short([t.tensor for t in worst])
    rows = [
        {
            "tensor": name,
            "percent": 100 * t.share,
            "kind": t.kind,
            "label": f"{t.tensor} ({t.kind}): {_percent(t.share)}, {decibels(_db(t.noise))} alone",
        }
        for name, t in zip(names, worst, strict=True)
    ]
    colours = {"domain": ["activation", "weight", "bias"], "range": ["var(--int8)", "var(--float)", "var(--soft)"]}
    return {
        "width": 520,
        "height": {"step": 17},
        "data": {"values": rows},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "tensor", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 340}},
            "x": {"field": "percent", "type": "quantitative", "title": "share of the output noise, %"},
            "color": {"field": "kind", "type": "nominal", "scale": colours},
            "description": {"field": "label", "type": "nominal"},
        },
    }


def _short(names: Sequence[str]) -> list[str]:
    """The ends of long names, told apart.

    >>> _short(["a", "x" * 50 + "a", "y" * 50 + "x" * 42 + "a"])[1:] == ["…" + "x" * 42 + "a", "…" + "x" * 42 + "a (2)"]
    True
    """
    out: list[str] = []
    for name in names:
        short = name if len(name) <= NAME else f"…{name[1 - NAME :]}"
        number = 2
        unique = short
        while unique in out:
            unique = f"{short} ({number})"
            number += 1
        out.append(unique)
    return out
