"""The types that a schema is made of: a dataclass's fields, and how a sentence speaks of a type or a node."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from onnxq.errors import did_you_mean
from onnxq.reading.scalars import Odd, describe, scalar


def fields(schema: type[Any]) -> dict[str, Any]:
    """Field -> type, for the fields that a file may set.

    Types are looked up field by field: a class may have annotations (of ClassVars) that exist for type checkers only.
    """
    kinds: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        if not field.init or not field.metadata.get("yaml", True):
            continue
        kind: Any = field.type
        if isinstance(kind, str):
            owner = next(c for c in schema.__mro__ if field.name in inspect.get_annotations(c))
            kind = eval(kind, vars(sys.modules[owner.__module__]), dict(vars(owner)))
        kinds[field.name] = kind
    return kinds


def required(schema: Any) -> list[str]:
    """The fields that a file must set."""
    missing = dataclasses.MISSING
    return [
        f.name for f in dataclasses.fields(schema) if f.init and f.default is missing and f.default_factory is missing
    ]


def is_list(kind: Any) -> bool:
    """A list, a tuple or another sequence that is no text."""
    origin = typing.get_origin(kind)
    return origin in (list, tuple) or (isinstance(origin, type) and origin is not str and issubclass(origin, Sequence))


def same_form(node: yaml.Node, kind: Any) -> bool:
    """Could a node of this form (mapping, list) be of this type at all?"""
    if isinstance(node, yaml.MappingNode):
        origin = typing.get_origin(kind)
        return dataclasses.is_dataclass(kind) or (isinstance(origin, type) and issubclass(origin, Mapping))
    return isinstance(node, yaml.SequenceNode) and is_list(kind)


def found(node: yaml.Node) -> str:
    """What stands there, for a sentence."""
    if isinstance(node, yaml.ScalarNode):
        return describe(scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return f"a list of {len(node.value)}"
    return "a mapping"


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    None: "nothing",
    types.NoneType: "nothing",
    Any: "a value",
}


def wanted(kind: Any) -> str:
    """What a type takes, for a sentence."""
    if kind in _NAMES:
        return _NAMES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        parts = [wanted(a) for a in sorted(arguments, key=lambda a: a is types.NoneType)]
        return ", ".join(parts[:-1]) + " or " + parts[-1]
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} ({', '.join(wanted(a) for a in arguments)})"
    if is_list(kind):
        return "a list" if arguments[0] is Any else f"a list (each {wanted(arguments[0])})"
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"a mapping with keys out of {', '.join(fields(kind))}"
    return "a mapping"


def hint(node: yaml.Node, kind: Any) -> str:
    """The end of the sentence: what to write instead, where that can be guessed."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    value = scalar(node)
    alternatives = typing.get_args(kind) if typing.get_origin(kind) in (Union, types.UnionType) else (kind,)
    if isinstance(value, str) and node.style is not None:
        bare = scalar(yaml.ScalarNode(node.tag, value, node.start_mark, node.end_mark))
        for kind_of in (bool, int, float):
            if kind_of in alternatives and isinstance(bare, (int, float) if kind_of is float else kind_of):
                return ": leave the quotes out"
    for schema in alternatives:
        if isinstance(value, str) and dataclasses.is_dataclass(schema):
            needed = required(schema)
            if len(needed) == 1:
                return f": write {{{needed[0]}: {value}}}"
    choices = [c for a in alternatives if typing.get_origin(a) is Literal for c in typing.get_args(a)]
    if isinstance(value, str) and choices:
        return f": {did_you_mean(value, [str(c) for c in choices])}"
    if isinstance(value, Odd) and value.taken_for == "true or false" and bool in alternatives:
        return ": write true or false"
    if isinstance(value, Odd) and {int, float} & set(alternatives):
        return ": write it as a plain decimal number"
    takes_text = {str, Path} & set(alternatives) or any(isinstance(c, str) for c in choices)
    if value is not None and takes_text:
        return ": write it in quotes"
    if isinstance(value, Odd):
        return ": write it in quotes if it is a text"
    return ""
