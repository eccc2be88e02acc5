"""Results as one page for a browser: self-contained, offline, in dark and in light, with plots and tables.

The page is made of the JSON form of a result, so a saved one gives the same page without running anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from onnxq.errors import UsageError
from onnxq.report import account, inside, measured, origin, repairs
from onnxq.report.content import size
from onnxq.report.elements import items, number
from onnxq.report.frame import frame
from onnxq.validate.result import SCHEMA

Document = Mapping[str, Any]

_SECTIONS = (
    ("verdict", "Verdict", measured.verdict),
    ("size-and-speed", "Size and speed", measured.comparison),
    ("accuracy", "Accuracy", measured.accuracy),
    ("coverage", "Coverage", measured.coverage),
    ("layers", "Layer by layer", inside.layers),
    ("account", "Where the time goes", account.part),
    ("pareto", "Models tried", inside.pareto),
    ("placement", "Placement", inside.placement),
    ("repairs", "Repairs", repairs.part),
    ("pipeline", "Pipeline", origin.pipeline),
    ("again", "Run it again", origin.again),
    ("times", "Time", origin.times),
)
"""Id, title and content, in the order of the page; a part without content is left out."""


def page(document: Document) -> str:
    """The page of a result in its JSON form.

    Raises:
        UsageError: the library that draws the plots is not installed.
    """
    made = [(name, title, body) for name, title, make in _SECTIONS if (body := make(document))]
    notes = list(_notes(document))
    if notes:
        made.insert(1 if document.get("verdict") else 0, ("notes", "Notes", items(notes)))
    return frame(
        f"onnxq {document['command']}: {_name(document)}",
        made,
        about=_about(document),
        made_from=f"a result in the form {document['schema']}",
        badge=_badge(document),
        tiles=list(_tiles(document)),
    )


def read(path: Path) -> Document:
    """A saved result.

    Raises:
        UsageError: it cannot be read, or is no result of onnxq, or of another version of its form.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name a file that --report wrote") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}): name a file that --report wrote") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, str) or not schema.startswith("onnxq.result/"):
        raise UsageError(f"{path} is no result of onnxq: name a file that --report result.json wrote")
    if schema != SCHEMA:
        raise UsageError(f"{path} has the form {schema}, this onnxq reads {SCHEMA}: take the version that wrote it")
    return dict(found)


def _name(doc: Document) -> str:
    path = doc.get("candidate") or doc.get("reference") or ""
    return str(path).rpartition("/")[2]


def _about(doc: Document) -> str:
    told = []
    if doc.get("reference"):
        told.append(f"float model {doc['reference']}")
    if doc.get("candidate"):
        told.append(f"int8 model {doc['candidate']}")
    told += [f"{key} {doc[key]}" for key in ("target", "method") if doc.get(key)]
    if doc.get("calibration"):
        told.append(f"calibrated on {doc['calibration']}")
    return ", ".join(told)


def _badge(doc: Document) -> str:
    if not doc.get("verdict"):
        return ""
    said = measured.outcome(doc["verdict"])
    return f'<span class="badge {measured.mood(said)}">{escape(said)}</span> '


def _tiles(doc: Document) -> Iterator[str]:
    """The few figures that everybody looks for."""
    sizes, latencies, accuracy = doc.get("sizes"), doc.get("latency"), doc.get("accuracy")
    if sizes and sizes["reference"]:
        yield _tile(
            "size", size(sizes["candidate"]), f"{sizes['candidate'] / sizes['reference']:.0%} of the float file"
        )
    if latencies:
        best = latencies[0]
        spread = f"{best['speedup_low']:.2f} to {best['speedup_high']:.2f}, {measured.threads(best['threads'])}"
        yield _tile("speed", f"{best['speedup']:.2f}x", f"as fast as float ({spread})")
    for one in (doc.get("account") or [])[:1]:
        told = f"of the time is the kernel limit ({one['limit_ms']:.3g} of {one['measured_ms']:.3g} ms)"
        yield _tile("nearness", f"{number(one['nearness']):.0%}", told)
    if accuracy and accuracy.get("metric"):
        metric = accuracy["metric"]
        low, high = (number(metric["interval"][end]) for end in ("low", "high"))
        told = f"float {number(metric['reference']):.4g}; drop {low:.3g} to {high:.3g}"
        yield _tile(str(metric["name"]), f"{number(metric['candidate']):.4g}", told)
    if accuracy:
        worst = min((number(o["sqnr_db"]) for o in accuracy["outputs"] if o["sqnr_db"] is not None), default=math.nan)
        if not math.isnan(worst):
            yield _tile("SQNR", "equal" if math.isinf(worst) else f"{worst:.1f} dB", "of the worst output")
    found = doc.get("coverage") or (doc.get("model") or {}).get("coverage")
    if found and not math.isnan(share := number(found.get("mac_share"))):
        heavy = found["heavy_total"]
        floats = sum(1 for o in found["ops"] if o["heavy"] and not o["integer"])
        yield _tile("integer MACs", f"{share:.0%}", f"{heavy - floats} of {heavy} heavy operators in integer kernels")


def _tile(what: str, figure: str, about: str) -> str:
    return f'<div class="tile"><span>{escape(what)}</span><b>{escape(figure)}</b><span>{escape(about)}</span></div>'


def _notes(doc: Document) -> Iterator[str]:
    """All sentences for the user, each once."""
    model = doc.get("model") or {}
    places = (doc, model, model.get("coverage"), doc.get("accuracy"), doc.get("coverage"))
    yield from dict.fromkeys(str(note) for place in places if place for note in place.get("notes") or ())
