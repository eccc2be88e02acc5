"""Short forms for tests of passes."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import onnx

from onnxq.pipeline.base import Pass, Report
from onnxq.testing import assert_rewrite


def model(graph: str, opset: int = 21) -> str:
    """A graph in onnx.parser syntax with the head that models need."""
    return f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> g {graph}'


def rewrite(pass_: Pass, before: str, after: str, *, opset: int = 21, **options: Any) -> Report:
    """`assert_rewrite` on graphs without a head."""
    return assert_rewrite(pass_, model(before, opset), model(after, opset), **options)


def keep(pass_: Pass, graph: str, *reasons: str, opset: int = 21, **options: Any) -> Report:
    """The pass must leave the graph alone, with these refusals."""
    return rewrite(pass_, graph, graph, opset=opset, rewrites=0, refused=reasons, atol=0, **options)


bitwise = functools.partial(rewrite, atol=0)

_PARTS = re.compile(
    r"\s*\((?P<inputs>.*?)\)\s*=>\s*\((?P<outputs>.*?)\)\s*(?:<(?P<constants>.*?)>)?\s*\{(?P<nodes>.*)\}\s*", re.S
)
_BODIES = (
    "(bool bodies_c, float[2] bodies_x) => (float[2] bodies_y) { [bodies] bodies_y = If(bodies_c) "
    "<then_branch = bodies_a () => (float[2] bodies_t) { [bodies_n] bodies_t = Neg(bodies_x) }, "
    "else_branch = bodies_b () => (float[2] bodies_e) { [bodies_m] bodies_e = Abs(bodies_x) }> }"
)


def together(
    pass_: Pass,
    *,
    changed: Sequence[tuple[str, str, int]],
    kept: Sequence[tuple[str, str]] = (),
    quiet: Sequence[str] = (),
    turns: int = 2,
    **options: Any,
) -> Report:
    """Many sites in one graph, each several times, beside a graph with bodies: no site may hide or repeat another one.

    Args:
        pass_: the pass.
        changed: graphs before and after, and how many rewrites that is.
        kept: graphs that stay, and a part of the refusal.
        quiet: graphs that stay without a refusal.
        turns: how often each site occurs.
        options: of `rewrite`.
    """
    before, after, refused, rewrites = [], [], [], 0
    for turn in ("first", "second")[:turns]:
        for number, graph in enumerate([*quiet, *(g for g, _ in kept)]):
            before.append(_renamed(graph, f"{turn}_keep{number}"))
            after.append(before[-1])
        for number, (old, new, count) in enumerate(changed):
            names = _names(old)
            before.append(_renamed(old, f"{turn}_site{number}", names))
            after.append(_renamed(new, f"{turn}_site{number}", names | _names(new)))
            rewrites += count
        refused += [reason for _, reason in kept]
    options = {"atol": 0, **options}
    return rewrite(
        pass_, _joined([*before, _BODIES]), _joined([*after, _BODIES]), rewrites=rewrites, refused=refused, **options
    )


def _names(graph: str) -> set[str]:
    found: set[str] = set()
    pending = [onnx.parser.parse_graph(f"g {graph}")]
    while pending:
        one = pending.pop()
        found.update(t.name for t in [*one.input, *one.output, *one.initializer])
        for node in one.node:
            found.update([node.name, *node.input, *node.output])
            pending += [a.g for a in node.attribute if a.HasField("g")]
    return found - {""}


def _renamed(graph: str, prefix: str, names: set[str] | None = None) -> str:
    names = _names(graph) if names is None else names
    return re.sub(r"[A-Za-z_]\w*", lambda word: f"{prefix}_{word[0]}" if word[0] in names else word[0], graph)


def _joined(graphs: Sequence[str]) -> str:
    parts = [match.groupdict() for g in graphs if (match := _PARTS.fullmatch(g))]
    assert len(parts) == len(graphs)
    text = {
        key: ", ".join(p[key] for p in parts if p[key] and p[key].strip()) for key in ("inputs", "outputs", "constants")
    }
    nodes = "\n".join(p["nodes"] for p in parts)
    return f"({text['inputs']}) => ({text['outputs']}) <{text['constants']}> {{ {nodes} }}"
