"""A fact, its table, and the blocks between markers of docs/ort.md that hold the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CPU, OPS, SELECT = "onnxq/targets/cpu.yaml", "onnxq/optable.py", "onnxq/plan/select.py"
PLANNER, INSERT, KERNELS = "onnxq/plan/planner.py", "passes/onnxq_passes/insert_qdq.py", "onnxq/validate/kernels.py"
REASONS = "onnxq/validate/reasons.py"
WHY, PROTECT = "onnxq/plan/reasons.py", "onnxq/plan/protect.py"
FLOAT16 = "passes/onnxq_passes/float16_to_float.py"
MAPPING, ACCURACY = "onnxq/validate/mapping.py", "onnxq/validate/accuracy.py"
PIPELINE = "passes/onnxq_passes/pipelines/cpu.yaml"
"""Files that rely on facts, from the project's root."""

Rows = Sequence[Sequence[str]]
"""The first row is the header."""

BLOCK = re.compile(r"<!-- measured: ([\w-]+) -->\n(.*?)<!-- /measured -->", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that ONNX Runtime does.

    Attributes:
        name: in markers and on the command line.
        says: the sentence above the table; "{}" stands for nothing, it is plain Markdown.
        rows: runs the models and gives the table.
        used: files of the project that rely on it, from the project's root.
        near: numbers may differ by up to a factor of two from the committed ones (kernels differ in their rounding
            from CPU to CPU); 0 stays 0, words stay words.
    """

    name: str
    says: str
    rows: Callable[[], Rows]
    used: tuple[str, ...] = ()
    near: bool = False


def markdown(fact: Fact, rows: Rows) -> str:
    """The block's content."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    assert all(len(row) == len(header) for row in body), fact.name
    lines = [fact.says, "", *_table(header, body)]
    if fact.used:
        lines += ["", "Relied on by " + ", ".join(f"`{path}`" for path in fact.used) + "."]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(header)
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *body)]


def blocks(page: str) -> dict[str, str]:
    """Name -> content of every block of a page."""
    return dict(BLOCK.findall(page))


def replace(page: str, name: str, content: str) -> str:
    """The page with one block replaced.

    Raises:
        KeyError: the page has no such block.
    """
    if name not in blocks(page):
        raise KeyError(f"docs/ort.md has no block <!-- measured: {name} --> ... <!-- /measured -->: add one")
    return BLOCK.sub(
        lambda m: f"<!-- measured: {name} -->\n{content}<!-- /measured -->" if m[1] == name else m[0], page
    )


def changes(committed: str, measured: str, *, near: bool) -> list[str]:
    """Lines that differ, as `- committed` and `+ measured`."""
    old, new = committed.strip().splitlines(), measured.strip().splitlines()
    out: list[str] = []
    for index in range(max(len(old), len(new))):
        a = old[index] if index < len(old) else ""
        b = new[index] if index < len(new) else ""
        if a != b and not (near and _close(a, b)):
            out += [f"- {a}", f"+ {b}"]
    return out


def _close(a: str, b: str) -> bool:
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(map(float, _NUMBER.findall(a)), map(float, _NUMBER.findall(b)), strict=True)
    return all(x == y or (min(x, y) > 0 and max(x, y) <= 2 * min(x, y)) for x, y in pairs)
