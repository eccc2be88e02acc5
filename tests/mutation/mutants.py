"""The mutants of a source file, by mutmut's operators; each is named by its function and the text that it changes."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

SWAPPABLE = ("property", "cached_property", "lru_cache", "cache", "staticmethod", "classmethod")
"""Decorators under which a function may be mutated here: only its code is exchanged."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one function.

    Attributes:
        file: name of the source file.
        function: qualified name, `Class.method` or `function`.
        change: lines that go ("- ") and lines that come ("+ "), without indentation.
        occurrence: 1 for the first place of the function where this change can be made, 2 for the second...
        lines: first and last line of the innermost statement that holds the change.
        source: the whole mutated file.
    """

    file: str
    function: str
    change: str
    occurrence: int
    lines: tuple[int, int]
    source: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What names this mutant in the list of survivors."""
        return self.file, self.function, self.change, self.occurrence


class _Visitor(MutationVisitor):
    """mutmut's visitor; it mutates functions under harmless decorators too and leaves alone what only people read."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return not all(_decorator(d) in SWAPPABLE for d in node.decorators)
        return bool(super()._skip_node_and_children(node))

    def _should_mutate_node(self, node: cst.CSTNode) -> bool:
        prose = isinstance(node, cst.SimpleString) and " " in node.value
        cast = isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "cast"
        return not prose and not cast and bool(super()._should_mutate_node(node))


def _decorator(decorator: cst.Decorator) -> str:
    node = decorator.decorator
    if isinstance(node, cst.Call):
        node = node.func
    if isinstance(node, cst.Attribute):
        node = node.attr
    return node.value if isinstance(node, cst.Name) else ""


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of the functions of a file, in order of the text.

    Not mutated: module level and class level (constants, settings), and string literals that hold a space (these
    are sentences for people), calls of `typing.cast`, and `strict` of `zip`, which is an assertion. Nor is what numpy
    reads as the same: `reshape(-2)` for `reshape(-1)`, `astype(None)` for `astype(np.float64)`.
    """
    source = path.read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    nothing = IgnoredCode(no_mutate_lines=set(), ignore_node_lines=set(), ignore_pattern_lines=set())
    visitor = _Visitor(mutation_operators, nothing)
    module = wrapper.visit(visitor)
    starts = wrapper.resolve(PositionProvider)
    extents = wrapper.resolve(WhitespaceInclusivePositionProvider)
    offsets = list(itertools.accumulate((len(line) for line in source.splitlines(keepends=True)), initial=0))
    names = _qualified(module)
    statements = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.stmt)]
    seen: Counter[tuple[str, str]] = Counter()
    found: list[Mutant] = []
    for mutation in visitor.mutations:
        function = names.get(mutation.contained_by_top_level_function)
        if function is None:
            continue
        if isinstance(mutation.original_node, cst.Match):  # the only block that is changed: it needs its indentation
            mutated = _rewritten(module, mutation)
        else:
            text = module.code_for_node(mutation.mutated_node)
            mutated = _splice(source, offsets, extents[mutation.original_node], text)
        change = _difference(source, mutated)
        if _bare(change, "- ") == _bare(change, "+ "):
            continue
        seen[function, change] += 1
        line = starts[mutation.original_node].start.line
        found.append(
            Mutant(
                file=path.name,
                function=function,
                change=change,
                occurrence=seen[function, change],
                lines=_statement(statements, line),
                source=mutated,
            )
        )
    return found


def install(mutant: Mutant, module: types.ModuleType) -> None:
    """Exchange the code of the mutated function in this process; whoever imported it has the mutant, too."""
    namespace: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(mutant.source, str(module.__file__), "exec"), namespace)
    new, old = _function(namespace, mutant.function), _function(vars(module), mutant.function)
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def _function(namespace: Mapping[str, Any], qualified: str) -> types.FunctionType:
    first, *rest = qualified.split(".")
    found = namespace[first]
    for name in rest:
        found = vars(found)[name]
    while not isinstance(found, types.FunctionType):
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, functools.cached_property):
            found = found.func
        else:
            found = found.__wrapped__
    return found


def _qualified(module: cst.Module) -> dict[cst.CSTNode | None, str]:
    names: dict[cst.CSTNode | None, str] = {}
    for statement in module.body:
        if isinstance(statement, cst.FunctionDef):
            names[statement] = statement.name.value
        elif isinstance(statement, cst.ClassDef):
            for part in statement.body.body:
                if isinstance(part, cst.FunctionDef):
                    names[part] = f"{statement.name.value}.{part.name.value}"
    return names


def _rewritten(module: cst.Module, mutation: Mutation) -> str:
    changed = deep_replace(module, mutation.original_node, mutation.mutated_node)
    assert isinstance(changed, cst.Module)
    return changed.code


def _splice(source: str, offsets: Sequence[int], extent: CodeRange, text: str) -> str:
    start = offsets[extent.start.line - 1] + extent.start.column
    end = offsets[extent.end.line - 1] + extent.end.column
    return source[:start] + text + source[end:]


def _difference(before: str, after: str) -> str:
    old, new = ([line.strip() for line in text.splitlines()] for text in (before, after))
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    return "\n".join([f"- {line}" for line in gone] + [f"+ {line}" for line in come])


def _bare(change: str, sign: str) -> str:
    """The lines with one sign, without what only asserts, and in one of the spellings that are the same to numpy."""
    lines = [line.removeprefix(sign) for line in change.splitlines() if line.startswith(sign)]
    text = " ".join(lines).replace(".reshape(-2)", ".reshape(-1)").replace(".astype(None)", ".astype(np.float64)")
    return re.sub(r",\s*(strict=\w+|(?=\)))", "", text).replace(" )", ")")


def _statement(statements: list[ast.stmt], line: int) -> tuple[int, int]:
    around = [
        (s.lineno, s.end_lineno or s.lineno) for s in statements if s.lineno <= line <= (s.end_lineno or s.lineno)
    ]
    return min(around, key=lambda s: s[1] - s[0], default=(line, line))
