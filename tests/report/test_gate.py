"""The four forms of one verdict. JUnit is read by the standard library's parser and held against its known shape."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from onnxq.report import gate
from onnxq.validate.gate import Check, GateVerdict, verdict
from onnxq.validate.intervals import Interval
from onnxq.validate.result import Result

KEPT = Check(name="size ratio", passed=True, measured=0.3, limit=0.5, sentence="size ratio: 0.3", group="size")
BROKEN = Check(
    name="drop of top1", passed=False, measured=0.1, limit=0.01, group="accuracy",
    sentence='top1: 0.9 -> 0.8 <worse> & "so"',
    interval=Interval(low=0.05, high=0.15), samples=100, details=("9 samples | only one\n`gets` [right]",),
)  # fmt: skip
OPEN = replace(BROKEN, name="f1", inconclusive=True, sentence="f1: 50 %, who knows", details=())
WARNED = replace(KEPT, name="2 threads", passed=False, warning=True, group="portability", details=("why, exactly",))
CAUSE = "Relu relu: its uint8 encoding alone leaves 4.6 dB"


def result(*checks: Check, causes: tuple[str, ...] = (CAUSE,)) -> Result:
    return Result(
        command="gate", reference=Path("float.onnx"), candidate=Path("a,b:c.onnx"), verdict=verdict(checks, causes)
    )


SCHEMA: dict[str, tuple[set[str], set[str]]] = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testcase"}),
    "testcase": ({"name", "classname", "time"}, {"failure", "error", "skipped", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}
"""Element -> its attributes, and what may stand in it: the JUnit schema of Jenkins' xUnit plugin (junit-10.xsd)."""


def walk(element: ET.Element) -> None:
    attributes, children = SCHEMA[element.tag]
    assert set(element.attrib) == attributes, element.tag
    for child in element:
        assert child.tag in children, (element.tag, child.tag)
        walk(child)
    if element.tag.startswith("testsuite"):
        cases = list(element.iter("testcase"))
        assert int(element.attrib["tests"]) == len(cases)
        for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.attrib[kind]) == len(list(element.iter(tag))), kind


def test_junit_has_the_known_shape_and_says_what_happened() -> None:
    top = ET.fromstring(gate.junit(result(KEPT, BROKEN, OPEN, WARNED)))
    walk(top)
    assert [s.attrib["name"] for s in top] == ["size", "accuracy", "portability"]
    cases = {c.attrib["name"]: c for c in top.iter("testcase")}
    assert [child.tag for c in cases.values() for child in c] == ["system-out", "failure", "error", "skipped"]
    failure = cases["drop of top1"].find("failure")
    assert failure is not None and failure.text is not None
    assert failure.attrib == {"message": BROKEN.sentence, "type": "fail"}
    assert failure.text.endswith(CAUSE) and "9 samples | only one" in failure.text
    assert cases["drop of top1"].attrib["classname"] == "onnxq.gate.accuracy"


def test_junit_holds_no_character_that_xml_refuses() -> None:
    odd = replace(BROKEN, name="a\x00b\ud800", sentence="x\x1by")
    case = next(ET.fromstring(gate.junit(result(odd))).iter("testcase"))
    assert case.attrib["name"] == "a?b?"


def test_markdown_is_one_table_whose_cells_stay_cells() -> None:
    text = gate.markdown(result(KEPT, BROKEN, OPEN, WARNED))
    lines = text.splitlines()
    assert lines[0] == "## ❌ onnxq gate: fail"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in table)
    assert "&lt;worse&gt; &amp;" in text and "<worse>" not in text
    assert f"* {CAUSE}" in text
    assert r"\`gets\` \[right\]" in text
    assert gate.markdown(result(KEPT, causes=())).startswith("## ✅ onnxq gate: pass")
    assert "###" not in gate.markdown(result(KEPT, causes=()))


def test_workflow_commands_are_escaped() -> None:
    lines = list(gate.workflow_commands(result(KEPT, BROKEN, OPEN, WARNED)))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::warning"]
    assert lines[0] == (
        '::error file=a%2Cb%3Ac.onnx,title=onnxq gate%3A drop of top1::top1: 0.9 -> 0.8 <worse> & "so"%0A' + CAUSE
    )
    assert lines[1].endswith("::f1: 50 %25, who knows")
    assert all("\n" not in line for line in lines)


def test_terminal_sections() -> None:
    checks, behind, causes = gate.sections(verdict((KEPT, BROKEN, OPEN, WARNED), (CAUSE,)))
    assert checks.title == "Gate: FAIL" and checks.mood == "bad"
    assert [row[0] for row in checks.rows] == ["ok", "FAIL", "open", "warn"]
    assert behind.rows[0][0] == "drop of top1" and causes.rows == ((CAUSE,),)
    (only,) = gate.sections(verdict((OPEN,)))
    assert only.title == "Gate: inconclusive" and only.mood == "open"


def test_a_result_without_a_verdict_has_no_form() -> None:
    with pytest.raises(AssertionError, match="only a gate has a verdict"):
        gate.junit(Result(command="validate"))


def test_all_forms_agree(tmp_path: Path) -> None:
    for checks, outcome in (((KEPT,), "pass"), ((KEPT, OPEN), "inconclusive"), ((OPEN, BROKEN), "fail")):
        made = result(*checks)
        assert isinstance(made.verdict, GateVerdict) and made.verdict.outcome == outcome
        top = ET.fromstring(gate.junit(made))
        assert (top.attrib["failures"] != "0") == (outcome == "fail")
        assert gate.markdown(made).splitlines()[0].endswith(outcome)
        assert any(line.startswith("::error") for line in gate.workflow_commands(made)) == (outcome == "fail")
