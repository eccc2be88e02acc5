"""One verdict in four forms: tables for a terminal, JUnit XML, a summary in Markdown, annotations of a workflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from onnxq.report.section import Section
from onnxq.validate.gate import Check, GateVerdict
from onnxq.validate.result import Result

WORDS: Mapping[str, str] = {"pass": "ok", "fail": "FAIL", "inconclusive": "open", "warn": "warn"}
_TITLES = {"pass": "Gate: pass", "fail": "Gate: FAIL", "inconclusive": "Gate: inconclusive"}
_MOODS = {"pass": "good", "fail": "bad", "inconclusive": "open"}
_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "warn": "⚠️"}
_EXPLAINED = ("accuracy", "drift", "portability")
_SHOWN = 5


def sections(verdict: GateVerdict) -> Iterator[Section]:
    """For a terminal: the checks, what stands behind those that are not kept, and where failures come from."""
    outcome = verdict.outcome
    rows = [(WORDS[c.outcome], c.sentence) for c in verdict.checks]
    yield Section(title=_TITLES[outcome], rows=tuple(rows), mood=_MOODS[outcome])
    behind = [(c.name, d) for c in verdict.checks if not c.passed for d in c.details[:_SHOWN]]
    if behind:
        yield Section(title="Behind it", rows=tuple(behind))
    if verdict.causes:
        yield Section(title="Where it comes from", rows=tuple((c,) for c in verdict.causes))


def junit(result: Result) -> str:
    """JUnit XML, the form that Jenkins, GitLab and GitHub read: a suite per group, a case per limit.

    A broken limit is a failure, an open one an error of type inconclusive (so that no reader takes it for passed), a
    broken one that only warns is skipped.
    """
    verdict = _verdict(result)
    top = ET.Element("testsuites", {"name": "onnxq gate", **_counts(verdict.checks)})
    groups: dict[str, list[Check]] = {}
    for check in verdict.checks:
        groups.setdefault(check.group or "gate", []).append(check)
    for group, checks in groups.items():
        suite = ET.SubElement(top, "testsuite", {"name": group, **_counts(checks)})
        for check in checks:
            case = ET.SubElement(suite, "testcase", name=_xml(check.name), classname=f"onnxq.gate.{group}", time="0")
            tag = {"fail": "failure", "inconclusive": "error", "warn": "skipped"}.get(check.outcome)
            text = "\n".join((check.sentence, *check.details, *_causes(check, verdict)))
            if tag is not None:
                kind = {} if tag == "skipped" else {"type": check.outcome}
                ET.SubElement(case, tag, {"message": _xml(check.sentence), **kind}).text = _xml(text)
            else:
                ET.SubElement(case, "system-out").text = _xml(text)
    ET.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"


def _causes(check: Check, verdict: GateVerdict) -> tuple[str, ...]:
    """Layers that explain this check."""
    return verdict.causes if check.outcome == "fail" and check.group in _EXPLAINED else ()


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    found = [c.outcome for c in checks]
    return {
        "tests": str(len(found)),
        "failures": str(found.count("fail")),
        "errors": str(found.count("inconclusive")),
        "skipped": str(found.count("warn")),
        "time": "0",
    }


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def markdown(result: Result) -> str:
    """A summary for GITHUB_STEP_SUMMARY."""
    verdict = _verdict(result)
    outcome = verdict.outcome
    lines = [f"## {_MARKS[outcome]} onnxq gate: {outcome}", ""]
    if result.candidate is not None and result.reference is not None:
        lines += [f"`{_tick(str(result.candidate))}` against `{_tick(str(result.reference))}`", ""]
    lines += ["| | limit | what was found |", "|---|---|---|"]
    lines += [f"| {_MARKS[c.outcome]} | {_cell(c.name)} | {_cell(c.sentence)} |" for c in verdict.checks]
    behind = [(c.name, d) for c in verdict.checks if not c.passed for d in c.details[:_SHOWN]]
    for title, items in (
        ("Behind it", [f"{_cell(n)}: {_cell(d)}" for n, d in behind]),
        ("Where it comes from", [_cell(c) for c in verdict.causes]),
    ):
        if items:
            lines += ["", f"### {title}", "", *(f"* {i}" for i in items)]
    return "\n".join(lines) + "\n"


def _tick(text: str) -> str:
    return text.replace("`", "'")


def _cell(text: str) -> str:
    """Text that no cell, list or HTML reader takes for markup."""
    escaped = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|*_`\[\]])", r"\\\1", escaped).replace("\n", " ")


def workflow_commands(result: Result) -> Iterator[str]:
    """Workflow commands: an error per broken limit, a warning per open one and per one that only warns."""
    verdict = _verdict(result)
    file = f"file={_property(str(result.candidate))}," if result.candidate is not None else ""
    for check in verdict.checks:
        if check.outcome == "pass":
            continue
        command = "error" if check.outcome == "fail" else "warning"
        cause = "".join(f"\n{c}" for c in _causes(check, verdict)[:1])
        title = _property(f"onnxq gate: {check.name}")
        yield f"::{command} {file}title={title}::{_data(check.sentence + cause)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _verdict(result: Result) -> GateVerdict:
    assert result.verdict is not None, "only a gate has a verdict"
    return result.verdict
