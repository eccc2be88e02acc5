"""Parts of the HTML report on where it comes from: the pipeline, and everything to run it again."""

from __future__ import annotations

import shlex
from html import escape

from onnxq.report.content import size
from onnxq.report.elements import Cell, Marked, Number, facts, paragraphs, table
from onnxq.report.measured import Document


def pipeline(doc: Document) -> str:
    """The passes with their rewrites and refusals, and the pipeline as a file."""
    html = ""
    rows = [
        (
            p["name"],
            Number(p["rewrites"], str(p["rewrites"])),
            "; ".join(f"{r} ({n})" for r, n in p["refusals"].items()),
        )
        for p in doc.get("passes") or []
    ]
    if rows:
        html += table("passes", ("pass", "rewrites", "refused because (times)"), rows, caption="passes in their order")
    text = (doc.get("run") or {}).get("pipeline")
    if text:
        html += _code("The pipeline, as a file for onnxq run", text)
    return html


def _code(title: str, text: str, *, wrap: bool = False) -> str:
    kind = " class=words" if wrap else ""
    return f"<details open><summary>{escape(title)}</summary><pre tabindex=0{kind}>{escape(text)}</pre></details>"


def again(doc: Document) -> str:
    """Everything needed to run it again."""
    run, env = doc.get("run") or {}, doc.get("environment") or {}
    html = ""
    if run.get("command"):
        html += _code("Command line", "onnxq " + shlex.join(run["command"]), wrap=True)
    if run.get("inputs"):
        rows = [
            (i["role"], Marked(i["path"], "name"), Number(i["bytes"], size(i["bytes"]) if i["bytes"] else "-"),
             Marked(i["sha256"], "hash") if i["sha256"] else f"not hashed: {i['note']}")
            for i in run["inputs"]
        ]  # fmt: skip
        html += table("hashes", ("what", "path", "size", "SHA-256"), rows, caption="files and their hashes")
    about: list[tuple[str, Cell]] = [
        (name, str(doc[key]))
        for name, key in (("target", "target"), ("method", "method"), ("calibrated on", "calibration"))
        if doc.get(key)
    ]
    about += [(f"seed of the {name}", str(value)) for name, value in (run.get("seeds") or {}).items()]
    if env:
        features = f" ({', '.join(env['features'])})" if env["features"] else ""
        about += [
            ("CPU", f"{env['cpu']}{features}, {env['cores']} cores"),
            ("system", f"{env['platform']}, Python {env['python']}"),
            *((f"version of {p}", str(v)) for p, v in env["packages"].items()),
        ]
    return html + ("<h3>Made with</h3>" + facts(about) if about else "")


def times(doc: Document) -> str:
    """Seconds by stage."""
    found = doc.get("seconds") or {}
    if not found:
        return ""
    rows = [(stage, Number(s, f"{s:.2f} s")) for stage, s in found.items()]
    return table("times", ("stage", "seconds"), rows, caption="seconds by stage") + paragraphs(
        [f"All stages: {sum(found.values()):.1f} s."]
    )
