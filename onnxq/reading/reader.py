"""A strict reader of YAML into dataclasses: all faults of a file at once, each as `file:line:column: sentence`.

    job = read(Path("job.yaml"), Job)

The fields of a frozen dataclass are the schema; there is no second one. Understood types: None, bool, int, float, str,
Path (as written), Literal, unions of these and of the following, tuple[T, ...] and tuple[T, U], list[T], Sequence[T],
Mapping[str, T], Any, and dataclasses. A field with `metadata={"yaml": False}` cannot be set from a file. What a
dataclass itself refuses when it is made (OnnxqError or ValueError of its `__post_init__`) is a fault of the file, too.

Nothing is converted silently: an int is taken where a float is asked for, and that is all (see `scalars`).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from onnxq.errors import ConfigError, OnnxqError, did_you_mean
from onnxq.reading.kinds import fields, found, hint, is_list, required, same_form, wanted
from onnxq.reading.scalars import Odd, scalar

T = TypeVar("T")


class _Bad:
    """The value of a node that has a fault."""


BAD = _Bad()


def read(source: Path | str, schema: type[T], *, name: str | None = None) -> T:
    """A file (Path) or a text (str) as a value of a dataclass.

    Args:
        source: a path, or the YAML itself.
        schema: a dataclass.
        name: what messages call the source; default: the path, or `<text>`.

    Raises:
        ConfigError: every fault, one per line, in the order of the file.
    """
    reader, root = parse(source, name=name)
    value = reader.read_node(root, schema)
    reader.finish()
    return typing.cast(T, value)


def parse(source: Path | str, *, name: str | None = None) -> tuple[Reader, yaml.Node]:
    """The nodes of a file or a text, and a reader for them.

    Raises:
        ConfigError: not there, not UTF-8, not YAML, empty, or several documents.
    """
    name = name or (str(source) if isinstance(source, Path) else "<text>")
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {name}: check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read as UTF-8 text ({error}): check the file") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{where}: this is no YAML: {what}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is no YAML: {' '.join(str(error).split())}") from error
    if root is None:
        raise ConfigError(f"{name}:1:1: the file is empty: write at least one key")
    return Reader(name), root


class Reader:
    """Reads nodes of one file and gathers the faults; `finish` raises them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._faults: list[tuple[int, int, str]] = []
        self._open: set[int] = set()

    def fault(self, node: yaml.Node, sentence: str) -> _Bad:
        """Note a fault at a node; the value to return for it."""
        fault = (node.start_mark.line + 1, node.start_mark.column + 1, sentence)
        if fault not in self._faults:
            self._faults.append(fault)
        return BAD

    def finish(self) -> None:
        """Raise if there were faults.

        Raises:
            ConfigError: all of them, in the order of the file.
        """
        if self._faults:
            lines = [f"{self.name}:{line}:{column}: {text}" for line, column, text in sorted(self._faults)]
            raise ConfigError("\n".join(lines))

    def read_node(self, node: yaml.Node, kind: Any, path: str = "") -> Any:
        """A node as a value of a type, or BAD after noting the faults.

        Args:
            node: from `parse` or `find`.
            kind: a type as the module's docstring lists them, such as the dataclass of a pass.
            path: what messages call this node: `data.preprocess`.
        """
        if id(node) in self._open:
            return self.fault(node, f"{_title(path)} holds itself (an alias to an enclosing anchor): write it out")
        self._open.add(id(node))
        try:
            return self._read(node, kind, path)
        finally:
            self._open.discard(id(node))

    def _read(self, node: yaml.Node, kind: Any, path: str) -> Any:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            return self.fault(node, f"{_title(path)} has the tag {node.tag}: leave it out")
        if kind is Any:
            return self._plain(node, path)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (Union, types.UnionType):
            return self._union(node, kind, arguments, path)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self._dataclass(node, kind, path)
        if is_list(kind):
            return self._list(node, kind, path)
        if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(node, kind, arguments[1], path)
        return self._scalar(node, kind, path)

    def _scalar(self, node: yaml.Node, kind: Any, path: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return self._misfit(node, kind, path)
        value = scalar(node)
        if kind in (None, types.NoneType) and value is None:
            return None
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if kind is str and isinstance(value, str):
            return value
        if kind is Path and isinstance(value, str) and value:
            return Path(value)
        if typing.get_origin(kind) is Literal and not isinstance(value, Odd):
            for choice in typing.get_args(kind):
                if type(choice) is type(value) and choice == value:
                    return choice
        return self._misfit(node, kind, path)

    def _misfit(self, node: yaml.Node, kind: Any, path: str) -> _Bad:
        return self.fault(node, f"{_title(path)} takes {wanted(kind)}, not {found(node)}{hint(node, kind)}")

    def _union(self, node: yaml.Node, kind: Any, choices: Sequence[Any], path: str) -> Any:
        """The first alternative that fits; if only one has the node's form, its own faults, else one for all."""
        likely: list[tuple[Any, list[tuple[int, int, str]]]] = []
        # a whole number is an int before it is a float
        for choice in sorted(choices, key=lambda c: c is float):
            trial = Reader(self.name)
            trial._open = self._open
            value = trial._read(node, choice, path)
            if not trial._faults:
                return value
            if same_form(node, choice):
                likely.append((choice, trial._faults))
        if len(likely) == 1 and not isinstance(node, yaml.ScalarNode):
            self._faults += [f for f in likely[0][1] if f not in self._faults]
            return BAD
        return self._misfit(node, kind, path)

    def _list(self, node: yaml.Node, kind: Any, path: str) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return self._misfit(node, kind, path)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        kinds: Sequence[Any]
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(node.value) != len(arguments):
                return self._misfit(node, kind, path)
            kinds = arguments
        else:
            kinds = [arguments[0]] * len(node.value)
        values = [self.read_node(n, k, f"{path}[{i}]") for i, (n, k) in enumerate(zip(node.value, kinds, strict=True))]
        if any(v is BAD for v in values):
            return BAD
        return values if origin is list else tuple(values)

    def _mapping(self, node: yaml.Node, kind: Any, inner: Any, path: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self._misfit(node, kind, path)
        values = {key: self.read_node(n, inner, _join(path, key)) for key, (_, n) in self._entries(node, path).items()}
        return BAD if any(v is BAD for v in values.values()) else values

    def _dataclass(self, node: yaml.Node, schema: type[Any], path: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self._misfit(node, schema, path)
        kinds = fields(schema)
        entries = self._entries(node, path)
        good: dict[str, Any] = {}
        bad: set[str] = set()
        meant: set[str] = set()
        for key, (key_node, value_node) in entries.items():
            if key not in kinds:
                guess = did_you_mean(key, kinds)
                self.fault(key_node, f'{_title(path)} has no key "{key}": {guess}')
                meant |= {name for name in kinds if guess == f'did you mean "{name}"?'}
                bad.add(key)
                continue
            value = self.read_node(value_node, kinds[key], _join(path, key))
            if value is BAD:
                bad.add(key)
            else:
                good[key] = value
        for name in required(schema):
            if name not in entries:
                bad.add(name)
                if name not in meant:
                    self.fault(node, f'{_title(path)} lacks the key "{name}": add it')
        if bad.intersection(required(schema)):
            return BAD
        try:
            value = schema(**good)
        except (OnnxqError, ValueError) as error:
            # such sentences begin with the field's name: point there; what a bad field's default causes is no news
            first = str(error).split(" ")[0].split(".")[0]
            if first in good or not bad:
                at = entries[first][1] if first in entries else node
                self.fault(at, f"{path + ': ' if path else ''}{error}")
            return BAD
        return BAD if bad else value

    def _entries(self, node: yaml.MappingNode, path: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Key -> (key node, value node); keys are texts and stand once."""
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self.fault(key_node, f"{_title(path)} has a key that is no text, {found(key_node)}: write it in quotes")
            elif key in entries:
                first = entries[key][0].start_mark
                self.fault(
                    key_node, f'{_title(path)} has the key "{key}" twice, first in line {first.line + 1}: keep one'
                )
            else:
                entries[key] = (key_node, value_node)
        return entries

    def _plain(self, node: yaml.Node, path: str) -> Any:
        """Any: plain dicts, lists and scalars."""
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, Mapping[str, Any], Any, path)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, list[Any], path)
        assert isinstance(node, yaml.ScalarNode)
        value = scalar(node)
        return self._misfit(node, Any, path) if isinstance(value, Odd) else value

    def read_named(self, node: yaml.Node, lookup: Callable[[str], type[Any]], path: str = "") -> Any:
        """A list of `name` and `{name: {setting: value}}` as a tuple of (name, instance), or BAD.

        Args:
            node: the list.
            lookup: name -> dataclass whose fields are the settings; its OnnxqError is a fault at the name.
            path: what messages call the list: `pipeline`.
        """
        if not isinstance(node, yaml.SequenceNode):
            return self._misfit(node, Sequence[Any], path)
        items = [self._named(n, lookup, f"{path}[{i}]") for i, n in enumerate(node.value)]
        return BAD if any(i is BAD for i in items) else tuple(items)

    def _named(self, node: yaml.Node, lookup: Callable[[str], type[Any]], path: str) -> Any:
        name_node, settings = node, None
        if isinstance(node, yaml.MappingNode):
            if len(node.value) != 1:
                return self.fault(
                    node, f"{path} has {len(node.value)} keys: write one `name: {{setting: value}}` per item"
                )
            name_node, settings = node.value[0]
        name = self.read_node(name_node, str, path)
        if name is BAD:
            return BAD
        try:
            schema = lookup(name)
        except OnnxqError as error:
            return self.fault(name_node, f"{path}: {error}")
        if settings is None or (isinstance(settings, yaml.ScalarNode) and scalar(settings) is None):
            settings = yaml.MappingNode("tag:yaml.org,2002:map", [], name_node.start_mark, name_node.end_mark)
        value = self.read_node(settings, schema, name)
        return BAD if value is BAD else (name, value)


def find(node: yaml.Node, *keys: str) -> yaml.Node | None:
    """The node below these keys, or None."""
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        below = [v for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == key]
        if not below:
            return None
        node = below[0]
    return node


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _title(path: str) -> str:
    return path or "the file"
