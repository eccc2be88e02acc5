"""The sentences that the source of a module can say, so that a test can ask for a case of each."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any


def sentences(source: ModuleType | Callable[..., Any], *, least_words: int = 2) -> list[str]:
    """Every string of at least `least_words` words in a module or function, as a regular expression: what an f-string
    fills in may be anything. Docstrings and what is raised are left out.
    """
    tree = ast.parse(inspect.getsource(source))
    left_out = {id(inner) for node in ast.walk(tree) if _silent(node) for inner in ast.walk(node)}
    found = [_pattern(n) for n in _strings(tree) if id(n) not in left_out]
    return sorted({p for p in found if len(p.replace("\\ ", " ").split()) >= least_words})


def unsaid(patterns: list[str], said: list[str]) -> list[str]:
    """The patterns that occur in no sentence of `said`."""
    return [p for p in patterns if not any(re.search(p, one) for one in said)]


def _silent(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _strings(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr):
            yield child
            for part in child.values:
                if isinstance(part, ast.FormattedValue):
                    yield from _strings(ast.Expression(part.value))
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        else:
            yield from _strings(child)


def _pattern(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    assert isinstance(node, ast.JoinedStr)
    return "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".*" for p in node.values)
