"""Plots of the HTML report: Vega-Lite specifications, drawn to SVG while the report is written.

The page holds the finished drawings, so it needs no plotting code, works without scripts and prints. Colours are CSS
variables, which is how one drawing is readable in dark and in light. Each mark carries a label that tells its values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from onnxq.errors import UsageError

Row = Mapping[str, Any]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_INK = {"labelColor": "var(--soft)", "titleColor": "var(--fg)", "titleFontWeight": "normal"}
_CONFIG: dict[str, Any] = {
    "font": "system-ui, 'DejaVu Sans', sans-serif",
    "background": None,
    "view": {"stroke": None},
    "axis": {
        **_INK,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 260,
        "labelFlush": False,
    },
    "legend": {**_INK, "labelColor": "var(--fg)", "labelFontSize": 12, "orient": "top", "title": None},
    "text": {"color": "var(--fg)"},
}
_KINDS = {"domain": ["float", "int8"], "range": ["var(--float)", "var(--int8)"]}


def available() -> None:
    """Complain, before any work, if the library that draws is missing.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "an HTML report needs the package vl-convert-python, which draws its plots: install onnxq[report], "
            "or give --report a name that ends in .json"
        ) from error


def draw(name: str, spec: Mapping[str, Any]) -> str:
    """A specification as an SVG element, whose ids start with `name`.

    Raises:
        UsageError: the library is not installed.
    """
    available()
    import vl_convert

    svg = vl_convert.vegalite_to_svg({"$schema": _SCHEMA, "config": _CONFIG, **spec})
    return re.sub(r'(id="|url\(#|xlink:href="#)', rf"\1{name}-", svg)


def _text(field: str) -> dict[str, Any]:
    """What a mark says of itself."""
    return {"field": field, "type": "nominal"}


def latency(rows: Sequence[Row]) -> dict[str, Any]:
    """Bars: `threads` (text), `kind` (float, int8), `ms`, `label`."""
    return {
        "width": 560,
        "height": {"step": 17},
        "data": {"values": list(rows)},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "threads", "type": "nominal", "title": None, "sort": None},
            "yOffset": {"field": "kind", "type": "nominal", "sort": _KINDS["domain"]},
            "x": {"field": "ms", "type": "quantitative", "title": "median latency, ms"},
            "color": {"field": "kind", "type": "nominal", "scale": _KINDS},
            "description": _text("label"),
        },
    }


def account(rows: Sequence[Row], marks: Sequence[Row]) -> dict[str, Any]:
    """A bar of stacked parts per number of threads, and lines at what was measured and predicted.

    Args:
        rows: `threads` (text), `part`, `rank` (in the stack), `ms`, `label`.
        marks: `threads`, `what` (predicted, or the clock), `ms`, `label`.
    """
    ends = {"kernel limit": "var(--int8)", "other causes": "var(--soft)"}
    names = [r["part"] for r in sorted(rows, key=lambda r: r["rank"])]
    parts = [*dict.fromkeys(names)]
    middle = [p for p in parts if p not in ends and not p.startswith("not explained")]
    colours = {p: f"var(--part{i + 1})" for i, p in enumerate(middle)} | ends
    y = {"field": "threads", "type": "nominal", "title": None, "sort": None}
    x = {"field": "ms", "type": "quantitative", "title": "one run, ms"}
    scale = {"domain": parts, "range": [colours.get(p, "var(--line)") for p in parts]}
    return {
        "width": 760,
        "height": {"step": 46},
        "layer": [
            {
                "data": {"values": list(rows)},
                "mark": {"type": "bar", "height": 24, "stroke": "var(--card)", "strokeWidth": 1},
                "encoding": {
                    "y": y,
                    "x": x,
                    "color": {
                        "field": "part", "type": "nominal", "scale": scale, "sort": None,
                        "legend": {"columns": 3, "labelLimit": 240},
                    },
                    "order": {"field": "rank", "type": "quantitative"},
                    "description": _text("label"),
                },
            },
            {
                "data": {"values": list(marks)},
                "mark": {"type": "tick", "thickness": 2, "color": "var(--fg)"},
                "encoding": {
                    "y": y,
                    "x": x,
                    "size": {"condition": {"test": "datum.what == 'predicted'", "value": 30}, "value": 42},
                    "description": _text("label"),
                },
            },
        ],
    }  # fmt: skip


def interval(drop: float, low: float, high: float, label: str, limit: float | None) -> dict[str, Any]:
    """The drop of a score with its interval, no change and the limit as lines."""
    values = {"values": [{"drop": drop, "low": low, "high": high, "label": label}]}
    x = {"type": "quantitative", "title": "drop of the score (right: worse)", "scale": {"zero": False}}
    lines = [{"at": 0.0, "what": "no change"}]
    if limit is not None:
        lines.append({"at": limit, "what": "limit"})
    return {
        "width": 560,
        "height": 46,
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "rule", "strokeDash": [4, 3], "color": "var(--soft)"},
                "encoding": {"x": {**x, "field": "at"}, "description": _text("what")},
            },
            {
                "data": {"values": lines},
                "mark": {"type": "text", "align": "left", "dx": 4, "y": 6, "color": "var(--soft)"},
                "encoding": {"x": {**x, "field": "at"}, "text": {"field": "what"}},
            },
            {
                "data": values,
                "mark": {"type": "rule", "color": "var(--int8)", "strokeWidth": 3},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "description": _text("label")},
            },
            {
                "data": values,
                "mark": {"type": "point", "filled": True, "size": 90, "color": "var(--int8)", "opacity": 1},
                "encoding": {"x": {**x, "field": "drop"}, "description": _text("label")},
            },
        ],
    }


def coverage(rows: Sequence[Row]) -> dict[str, Any]:
    """Stacked bars: `op`, `kind` (float, int8), `count`, `label`, in the order given."""
    return {
        "width": 480,
        "height": {"step": 19},
        "data": {"values": list(rows)},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "op", "type": "nominal", "title": None, "sort": None},
            "x": {"field": "count", "type": "quantitative", "title": "operators", "axis": {"tickMinStep": 1}},
            "color": {"field": "kind", "type": "nominal", "scale": _KINDS},
            "description": _text("label"),
        },
    }


def layers(rows: Sequence[Row]) -> dict[str, Any]:
    """Points over the depth of the network: `position`, `db`, `series`, `label`; a line joins the first series."""
    names = list(dict.fromkeys(r["series"] for r in rows))
    base = {
        "x": {
            "field": "position",
            "type": "quantitative",
            "title": "tensor, from the input to the output",
            "axis": {"tickMinStep": 1, "format": "d", "grid": False},
            "scale": {"nice": False, "padding": 8},
        },
        "y": {"field": "db", "type": "quantitative", "title": "SQNR, dB", "scale": {"zero": False}},
        "color": {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": ["var(--int8)", "var(--float)"]},
        },
    }
    return {
        "width": 880,
        "height": 230,
        "data": {"values": list(rows)},
        "layer": [
            {
                "transform": [{"filter": {"field": "series", "equal": names[0] if names else ""}}],
                "mark": {"type": "line", "strokeWidth": 1.5, "opacity": 0.6, "aria": False},
                "encoding": base,
            },
            {
                "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
                "encoding": {
                    **base,
                    "shape": {
                        "field": "series",
                        "type": "nominal",
                        "scale": {"domain": names, "range": ["circle", "diamond"]},
                    },
                    "description": _text("label"),
                },
            },
        ],
    }


def histogram(rows: Sequence[Row], low: float, high: float) -> dict[str, Any]:
    """Bars on a logarithmic axis, `from`, `to`, `count`, `label`; the chosen range as a band between two lines."""
    x = {"type": "quantitative", "title": "value", "axis": {"grid": False, "tickCount": 6}, "scale": {"nice": False}}
    chosen = {"values": [{"low": low, "high": high}]}
    edges = {"values": [{"at": low, "label": f"range from {low:.4g}"}, {"at": high, "label": f"range to {high:.4g}"}]}
    least = 0.7
    return {
        "width": 380,
        "height": 130,
        "layer": [
            {
                "data": chosen,
                "mark": {"type": "rect", "color": "var(--band)", "opacity": 0.14, "aria": False},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "data": {"values": list(rows)},
                "mark": {"type": "bar", "color": "var(--float)", "binSpacing": 0.5},
                "encoding": {
                    "x": {**x, "field": "from", "bin": "binned"},
                    "x2": {"field": "to"},
                    "y": {
                        "field": "count",
                        "type": "quantitative",
                        "title": "elements",
                        "scale": {"type": "log", "domainMin": least},
                        "axis": {"values": [10**k for k in range(12)], "format": "~s"},
                    },
                    "y2": {"datum": least},
                    "description": _text("label"),
                },
            },
            {
                "data": edges,
                "mark": {"type": "rule", "color": "var(--band)", "strokeWidth": 2},
                "encoding": {"x": {**x, "field": "at"}, "description": _text("label")},
            },
        ],
    }


HOW = ("measured", "judged, time by costs", "predicted")
"""What is known of a model that was tried: its shape in the plot."""


def pareto(rows: Sequence[Row], x_title: str, y_title: str) -> dict[str, Any]:
    """Points `x`, `y`, `label`, `text` (above it), `kind` (of `HOW`), `chosen` (chosen, other).

    A line joins those with `front`, which no other beats on both.
    """
    scale = {"zero": False, "padding": 14}
    x = {"field": "x", "type": "quantitative", "title": x_title, "scale": scale, "axis": {"tickCount": 8}}
    y = {"field": "y", "type": "quantitative", "title": y_title, "scale": scale}
    known = [kind for kind in HOW if any(r["kind"] == kind for r in rows)]
    shapes: dict[str, str] = dict(zip(HOW, ("circle", "diamond", "triangle-up"), strict=True))
    is_chosen = "datum.chosen == 'chosen'"
    return {
        "width": 760,
        "height": 300,
        "data": {"values": list(rows)},
        "layer": [
            {
                "transform": [{"filter": "datum.front"}],
                "mark": {"type": "line", "color": "var(--soft)", "strokeDash": [5, 3], "aria": False},
                "encoding": {"x": x, "y": y, "order": {"field": "x"}},
            },
            {
                "mark": {"type": "point", "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    "size": {"condition": {"test": is_chosen, "value": 190}, "value": 70},
                    "color": {"condition": {"test": is_chosen, "value": "var(--int8)"}, "value": "var(--float)"},
                    "shape": {
                        "field": "kind",
                        "type": "nominal",
                        "scale": {"domain": known, "range": [shapes[kind] for kind in known]},
                        "legend": {"symbolFillColor": "var(--float)", "symbolStrokeColor": "var(--float)"},
                    },
                    "description": _text("label"),
                },
            },
            {
                "transform": [{"filter": "datum.text != ''"}],
                "mark": {"type": "text", "align": "center", "dy": -13, "color": "var(--fg)", "aria": False},
                "encoding": {"x": x, "y": y, "text": {"field": "text"}},
            },
        ],
    }
