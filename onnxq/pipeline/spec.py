"""Pipeline files: a target and an ordered list of passes with settings. The built-in pipelines are such files and
nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from onnxq import registry
from onnxq.errors import ConfigError, UnknownNameError, did_you_mean
from onnxq.pipeline.base import Pass
from onnxq.pipeline.manager import Pipeline, Step, check_order

PassSpec = str | Mapping[str, Any]


def load_pipeline(spec: str | Sequence[PassSpec], base: Path = Path()) -> Pipeline:
    """A pipeline by registered name, by file, or given as a list.

    Args:
        spec: `cpu`, `my-pipeline.yaml`, or a list of pass names and `{name: {setting: value}}`.
        base: the folder that relative file names start from.

    Raises:
        UnknownNameError: no such pipeline or pass.
        ConfigError: the file does not follow the schema, or the order of passes is wrong.
    """
    if not isinstance(spec, str):
        return build("the job's pipeline", spec, "the job's pipeline")
    if spec.endswith((".yaml", ".yml")):
        path = base / spec
        if not path.is_file():
            raise ConfigError(f"there is no pipeline file {path}: give a file or one of {', '.join(_names())}")
    else:
        path = registry.resource(registry.PIPELINES, spec)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    known = {"target", "passes"}
    if not isinstance(raw, dict) or not isinstance(raw.get("passes"), list):
        raise ConfigError(f'{path}: a pipeline is a mapping with a list "passes"')
    for key in raw:
        if key not in known:
            raise ConfigError(f'{path}: unknown key "{key}": {did_you_mean(key, known)}')
    return build(spec, raw["passes"], str(path))


def build(name: str, passes: Sequence[PassSpec], where: str) -> Pipeline:
    """A pipeline from a list of pass specs; every fault is collected before it complains.

    Raises:
        ConfigError: unknown passes or settings, or a wrong order.
    """
    steps: list[Step] = []
    faults: list[str] = []
    for number, spec in enumerate(passes, 1):
        try:
            steps.append(_step(spec))
        except (UnknownNameError, ConfigError) as error:
            faults.append(f"{where}: pass {number}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
    pipeline = Pipeline(name, tuple(steps))
    check_order(pipeline)
    return pipeline


def _step(spec: PassSpec) -> Step:
    if isinstance(spec, str):
        name, settings = spec, {}
    elif isinstance(spec, Mapping) and len(spec) == 1:
        ((name, body),) = spec.items()
        settings = dict(body or {})
    else:
        raise ConfigError(f"{spec!r} is neither a pass name nor {{name: {{setting: value}}}}")
    cls: type[Pass] = registry.load(registry.PASSES, name)
    fields: list[str] = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for key in settings:
        if key not in fields:
            raise ConfigError(f'pass "{name}" has no setting "{key}": {did_you_mean(key, fields)}')
    return Step(name, cls(**settings))


def _names() -> list[str]:
    return registry.names(registry.PIPELINES)
