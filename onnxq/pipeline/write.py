"""A pipeline as YAML with everything written out: what `onnxq show` prints and a crash folder holds."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxq.pipeline.manager import Pipeline, Step

DEFAULT_TARGET = "cpu"


def to_yaml(pipeline: Pipeline, *, at: Path | None = None) -> str:
    """The pipeline with every default and without includes; reading it gives an equal pipeline.

    Args:
        pipeline: what to write.
        at: the folder that the text will stand in, for the path of the calibration data; None: the current one.
    """
    calibration = _plain(pipeline.calibration)
    if pipeline.calibration.data is not None:
        calibration["data"] = _moved(pipeline.calibration.data, pipeline.base, at or Path())
    lines = [f"target: {json.dumps(pipeline.target or DEFAULT_TARGET)}", "calibration:"]
    lines += [f"  {key}: {_flow(value)}" for key, value in calibration.items()]
    lines.append(f"keep_float: {_flow(list(pipeline.keep_float))}")
    lines.append("passes:" if pipeline.steps else "passes: []")
    for step in pipeline.steps:
        lines += _step(step)
    return "\n".join(lines) + "\n"


def _step(step: Step) -> list[str]:
    settings = _plain(step.body)
    if not settings:
        return [f"  - {step.name}"]
    return [f"  - {step.name}:", *(f"      {key}: {_flow(value)}" for key, value in settings.items())]


def _moved(data: str, base: Path, to: Path) -> str:
    """A path relative to another folder; `file.py:function` by its file, other references as they are."""
    head, colon, tail = data.rpartition(":")
    if colon and head.endswith(".py"):
        return f"{_moved(head, base, to)}:{tail}"
    path = base / Path(data).expanduser()
    return os.path.relpath(path.resolve(), to.resolve()) if path.exists() else data


def _plain(value: Any) -> Any:
    """Mappings, lists, numbers and texts; of a dataclass, the fields that a file may set."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.init and f.metadata.get("yaml", True)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_plain(v) for v in items]
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    return str(value) if isinstance(value, Path) else value


def _flow(value: Any) -> str:
    # JSON is YAML, and its texts are in quotes: nothing is taken for something else
    return json.dumps(value, ensure_ascii=False)
