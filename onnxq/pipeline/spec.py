"""Pipeline files: a target, a calibration and an ordered list of passes with settings. The built-in pipelines are such
files and nothing else.

    target: cpu
    calibration: {method: percentile}
    pipelines:
      clean: [deduplicate-names, constants-to-initializers, fold-constants]
    passes:
      - include: clean              # a list of this file, another file, or a registered pipeline
      - fold-batchnorm
      - insert-qdq

Of an included pipeline only the passes are taken, and its target if this file names none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onnxq import registry
from onnxq.errors import ConfigError, OnnxqError, UnknownNameError, did_you_mean
from onnxq.pipeline.calibration import PipelineCalibration, check_settings
from onnxq.pipeline.manager import Pipeline, Step, check_order
from onnxq.reading.reader import BAD, Reader, find, parse

PassSpec = str | Mapping[str, Any]
INCLUDE = "include"
_FILES = (".yaml", ".yml")
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, kw_only=True)
class PipelineFile:
    """The schema of a pipeline file.

    Attributes:
        passes: names, `{name: {setting: value}}` and `{include: pipeline}`, in order.
        target: registered target; None: that of an included pipeline, else `cpu`.
        calibration: how ranges are found.
        keep_float: patterns of nodes that stay float.
        pipelines: lists of passes that `include` knows by name.
    """

    passes: list[Any]
    target: str | None = None
    calibration: PipelineCalibration = field(default_factory=PipelineCalibration)
    keep_float: tuple[str, ...] = ()
    pipelines: Mapping[str, list[Any]] = field(default_factory=dict)


def load_pipeline(spec: str | Sequence[PassSpec], base: Path = Path()) -> Pipeline:
    """A pipeline by registered name, by file, or given as a list.

    Args:
        spec: `cpu`, `my-pipeline.yaml`, or a list of what may stand under `passes`.
        base: the folder that relative file names start from.

    Raises:
        UnknownNameError: no such pipeline.
        ConfigError: every fault of the file and of those that it includes; or the order of passes is wrong.
    """
    if not isinstance(spec, str):
        return build("the job's pipeline", spec, base)
    if spec.endswith(_FILES):
        path = base / spec
        if not path.is_file():
            raise ConfigError(
                f"there is no pipeline file {path}: give a file or one of "
                f"{', '.join(registry.names(registry.PIPELINES))}"
            )
    else:
        path = registry.resource(registry.PIPELINES, spec)
    return _Loader().load(path, spec)


def build(name: str, passes: Sequence[PassSpec], base: Path = Path()) -> Pipeline:
    """A pipeline from a list as in a file; messages count its items as lines.

    Raises:
        ConfigError: all unknown passes, settings and includes, or a wrong order.
    """
    # JSON is YAML whose texts are in quotes, so that "no" stays a text
    lines = "\n".join(f"- {json.dumps(item)}" for item in passes)
    loader = _Loader()
    reader, root = parse(lines or "[]", name=name)
    loader.readers.append(reader)
    steps = loader.steps(_File(reader, yaml.MappingNode("", []), base / name, None), root, "passes", ())
    loader.finish()
    return _checked(Pipeline(name, tuple(steps), target=loader.inherited))


def read_passes(reader: Reader, node: yaml.Node, base: Path, path: str) -> None:
    """Note the faults of a list of passes that stands in another file, such as a job."""
    loader = _Loader()
    loader.steps(_File(reader, yaml.MappingNode("", []), base / reader.name, None), node, path, ())
    for one in loader.readers:
        try:
            one.finish()
        except ConfigError as error:
            reader.fault(node, f"{path}: {error}")


def _checked(pipeline: Pipeline) -> Pipeline:
    check_order(pipeline)
    return pipeline


@dataclass(frozen=True)
class _File:
    """A parsed file, its faults, where it is, and the target that it names."""

    reader: Reader
    root: yaml.Node
    path: Path
    target: str | None


class _Loader:
    """Reads a file and those that it includes, each once, and gathers the faults of all."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self.files: dict[Path, _File] = {}
        self.inherited: str | None = None

    def load(self, path: Path, name: str) -> Pipeline:
        file = self.file(path, str(path) if name.endswith(_FILES) else name)
        reader, root = file.reader, file.root
        head = reader.read_node(root, PipelineFile)
        check_settings(reader, root)
        passes = find(root, "passes")
        steps = self.steps(file, passes, "passes", (_key(path, ""),)) if passes is not None else []
        self._others(file)
        self.finish()
        assert isinstance(head, PipelineFile)
        pipeline = Pipeline(
            name,
            tuple(steps),
            target=head.target or self.inherited,
            calibration=head.calibration,
            keep_float=head.keep_float,
            base=path.parent,
        )
        return _checked(pipeline)

    def finish(self) -> None:
        """Raise the faults of all files in one error."""
        lines = []
        for reader in self.readers:
            try:
                reader.finish()
            except ConfigError as error:
                lines.append(str(error))
        if lines:
            raise ConfigError("\n".join(lines))

    def file(self, path: Path, shown: str) -> _File:
        key = path.resolve()
        if key not in self.files:
            reader, root = parse(path)
            reader.name = shown if shown.endswith(_FILES) else f"{shown} ({path.name})"
            self.readers.append(reader)
            node = find(root, "target")
            target = node.value if isinstance(node, yaml.ScalarNode) and node.tag != _NULL else None
            if target is not None and target not in registry.names(registry.TARGETS):
                guess = did_you_mean(target, registry.names(registry.TARGETS))
                reader.fault(node, f'there is no target "{target}": {guess}')  # type: ignore[arg-type]
            self.files[key] = _File(reader, root, path, target)
        return self.files[key]

    def steps(self, file: _File, node: yaml.Node, where: str, stack: tuple[str, ...]) -> list[Step]:
        """The passes of one list, includes replaced by what they stand for."""
        if not isinstance(node, yaml.SequenceNode):
            file.reader.read_node(node, list[Any], where)
            return []
        found: list[Step] = []
        for index, item in enumerate(node.value):
            included = find(item, INCLUDE)
            if included is not None and len(item.value) == 1:
                found += self._include(file, included, f"{where}[{index}]", stack)
                continue
            one = yaml.SequenceNode(node.tag, [item], item.start_mark, item.end_mark)
            made = file.reader.read_named(one, _pass, where)
            if made is not BAD:
                found += [Step(name, body) for name, body in made]
        return found

    def _include(self, file: _File, node: yaml.Node, where: str, stack: tuple[str, ...]) -> list[Step]:
        reader = file.reader
        name = reader.read_node(node, str, f"{where}.{INCLUDE}")
        if name is BAD:
            return []
        here = _names(file.root)
        try:
            other, passes, key = self._find(file, name, here)
        except OnnxqError as error:
            text = str(error)
            if isinstance(error, UnknownNameError):
                known = [*here, *registry.names(registry.PIPELINES)]
                text = f'there is no pipeline "{name}": {did_you_mean(name, known)}'
            reader.fault(node, f"{where}: {text}")
            return []
        if key in stack:
            chain = " -> ".join(Path(k).name for k in (*stack[stack.index(key) :], key))
            reader.fault(node, f"{where} includes itself ({chain}): take one of these includes out")
            return []
        mine = file.target or self.inherited
        if other.target is not None and mine not in (None, other.target):
            reader.fault(
                node,
                f"{where}: the pipeline {name} is for the target {other.target}, this one for {mine}: "
                "include one for the same target",
            )
        self.inherited = self.inherited or file.target or other.target
        if passes is None:
            other.reader.read_node(other.root, PipelineFile)
            return []
        return self.steps(other, passes, f"pipelines.{name}" if other is file else "passes", (*stack, key))

    def _find(self, file: _File, name: str, here: Sequence[str]) -> tuple[_File, yaml.Node | None, str]:
        if name in here:
            return file, find(file.root, "pipelines", name), _key(file.path, name)
        if name.endswith(_FILES):
            path = file.path.parent / name
            other = self.file(path, str(path))
        else:
            path = registry.resource(registry.PIPELINES, name)
            other = self.file(path, name)
        if other is not file:
            other.reader.read_node(other.root, PipelineFile)
        return other, find(other.root, "passes"), _key(path, "")

    def _others(self, file: _File) -> None:
        """Faults in lists that nobody includes."""
        for name in _names(file.root):
            node = find(file.root, "pipelines", name)
            if node is not None:
                target = self.inherited
                self.steps(file, node, f"pipelines.{name}", (_key(file.path, name),))
                self.inherited = target


def _pass(name: str) -> type[Any]:
    if name == INCLUDE:
        raise UnknownNameError("include takes a pipeline: write {include: name}")
    body: type[Any] = registry.load(registry.PASSES, name)
    return body


def _names(root: yaml.Node) -> list[str]:
    node = find(root, "pipelines")
    if not isinstance(node, yaml.MappingNode):
        return []
    return [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]


def _key(path: Path, name: str) -> str:
    return f"{path.resolve()}#{name}" if name else str(path.resolve())
