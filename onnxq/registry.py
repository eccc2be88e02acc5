"""One door for plugins, ours included: entry points, looked up by group and name, imported only when used."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnxq.errors import UnknownNameError, UsageError, did_you_mean

PASSES = "onnxq.passes"
CALIBRATORS = "onnxq.calibrators"
PIPELINES = "onnxq.pipelines"
TARGETS = "onnxq.targets"
METRICS = "onnxq.metrics"
DATA = "onnxq.data"

_NOUN = {
    PASSES: "pass",
    CALIBRATORS: "method",
    PIPELINES: "pipeline",
    TARGETS: "target",
    METRICS: "metric",
    DATA: "data source",
}


@functools.cache
def _installed() -> Any:
    """Everything that is registered, read once and not once for each group; its type changed in Python 3.12."""
    return metadata.entry_points()


def entry_points(*, group: str) -> EntryPoints:
    """What is registered in a group."""
    found: EntryPoints = _installed().select(group=group)
    return found


@functools.cache
def _table(group: str) -> dict[str, EntryPoint]:
    table: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = table.get(point.name)
        if other is not None and other.value != point.value:
            owners = sorted(p.dist.name if p.dist else p.value for p in (other, point))
            raise UsageError(
                f'two packages register the {_NOUN[group]} "{point.name}" ({owners[0]} and {owners[1]}): uninstall one'
            )
        table[point.name] = point
    return table


def names(group: str) -> list[str]:
    """Every registered name of a group, sorted. Imports nothing."""
    return sorted(_table(group))


def distribution(group: str, name: str) -> str:
    """The package that registered a name."""
    point = _point(group, name)
    return point.dist.name if point.dist else point.value


def load(group: str, name: str) -> Any:
    """The object behind a name.

    Raises:
        UnknownNameError: nobody registered it; the message proposes the nearest name.
        UsageError: its package is broken.
    """
    point = _point(group, name)
    try:
        return point.load()
    except Exception as error:  # the package may be anybody's code
        owner = distribution(group, name)
        raise UsageError(
            f'the {_NOUN[group]} "{name}" of {owner} cannot be imported ({type(error).__name__}: {error}): '
            f"repair or uninstall {owner}"
        ) from error


def resource(group: str, name: str) -> Path:
    """The file behind an entry point of the form `package:file.yaml` (pipelines, targets)."""
    point = _point(group, name)
    package, _, member = point.value.partition(":")
    return Path(str(files(package).joinpath(member)))


def load_reference(reference: str, base: Path, what: str) -> Any:
    """The object behind `module:name` or `file.py:name` (files are looked up below `base`).

    Raises:
        UsageError: the module, the file or the name is not there.
    """
    module_name, _, attribute = reference.rpartition(":")
    if not module_name:
        raise UsageError(f'{what} "{reference}" is not of the form module:name or file.py:name')
    if module_name.endswith(".py"):
        path = (base / module_name).resolve()
        if not path.is_file():
            raise UsageError(f'{what} "{reference}": there is no file {path}')
        try:
            module = _load_file(path)
        except Exception as error:  # the file may be anybody's code
            raise UsageError(
                f'{what} "{reference}": {module_name} cannot be imported ({type(error).__name__}: {error})'
            ) from error
    else:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UsageError(f'{what} "{reference}": module {module_name} cannot be imported ({error})') from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise UsageError(
            f'{what} "{reference}": {module_name} has no "{attribute}", {did_you_mean(attribute, vars(module))}'
        ) from error


def _load_file(path: Path) -> Any:
    name = f"onnxq_user_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _point(group: str, name: str) -> EntryPoint:
    table = _table(group)
    if name not in table:
        raise UnknownNameError(f'there is no {_NOUN[group]} "{name}": {did_you_mean(name, table)}')
    return table[name]
