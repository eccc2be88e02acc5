"""Cost files: JSON, one line per key, sorted, so that equal tables are equal files; and the files that are found by
themselves: the user's cache and the table that comes with onnxq.
"""

from __future__ import annotations

import functools
import json
import math
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnxq.costs.estimate import Costs
from onnxq.costs.key import CostKey, Operand, Value, as_plain
from onnxq.costs.table import Cost, CostTable, Machine, this_machine
from onnxq.errors import ConfigError, OutputError
from onnxq.stats.cache import default_folder, digest

SCHEMA = "onnxq.costs"
VERSION = 1

KEPT = 33
"""Observations of a key that the cache keeps at most, so that it does not grow for ever."""

_MAKE = "make one with onnxq costs measure"


def to_json(table: CostTable) -> str:
    """The text of a file; floats are written so that they are read back as the same."""
    machine = {**vars(table.machine), "features": list(table.machine.features)}
    head = {"schema": SCHEMA, "version": VERSION, "machine": machine}
    lines = sorted(_text(_entry(key, cost)) for key, cost in table.costs.items())
    top = "".join(f" {_text(name)}: {_text(value)},\n" for name, value in head.items())
    body = ",\n".join(f"  {line}" for line in lines)
    return f'{{\n{top} "costs": [\n{body}\n ]\n}}\n' if lines else f'{{\n{top} "costs": []\n}}\n'


def save(table: CostTable, path: Path) -> None:
    """Write a file, all of it or nothing.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            made.write_text(to_json(table), encoding="utf-8")
            made.replace(path)
    except OSError as error:
        raise OutputError(
            f"the costs cannot be written to {path} ({error.strerror or error}): choose another path"
        ) from error


def load(path: Path) -> CostTable:
    """Read a file.

    Raises:
        ConfigError: it is missing or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: give a cost file, or {_MAKE}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give a cost file, or {_MAKE}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no cost file (it is no text): {_MAKE}") from error
    return parse(text, str(path))


@functools.lru_cache(maxsize=4)  # the user's cache is read to plan with, and again to add to it
def parse(text: str, where: str) -> CostTable:
    """The table that a text holds.

    Raises:
        ConfigError: it has another form; names `where` and the entry.
    """
    try:
        plain = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(plain, dict) or plain.get("schema") != SCHEMA:
            raise ValueError(f'"schema" must be "{SCHEMA}"')  # noqa: TRY301 (one sentence for all faults)
        if plain.get("version") != VERSION:
            raise ValueError(  # noqa: TRY301
                f"it has version {plain.get('version')}, and this onnxq reads version {VERSION}"
            )
        _check(plain, {"schema": str, "version": int, "machine": dict, "costs": list})
        machine = _machine(plain["machine"])
        costs: dict[CostKey, Cost] = {}
        for number, entry in enumerate(plain["costs"], start=1):
            try:
                key, cost = _read(entry)
                if key in costs:
                    raise ValueError("this key is there twice")  # noqa: TRY301
            except ValueError as error:
                raise ValueError(f"entry {number}: {error}") from error
            costs[key] = cost
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no cost file ({error}): {_MAKE}") from error
    return CostTable(machine=machine, costs=costs)


def cache_file(machine: Machine | None = None) -> Path:
    """Where what was measured on a machine is kept, in the user's cache folder (see `onnxq.stats.cache`)."""
    machine = machine or this_machine()
    name = digest(machine.cpu, machine.family, list(machine.features), machine.onnxruntime)[:16]
    return default_folder() / "costs" / f"{name}.json"


def load_cached() -> CostTable | None:
    """What was measured on this machine before. A file that cannot be read counts as none."""
    try:
        found = load(cache_file())
    except ConfigError:
        return None
    return found if found.machine == this_machine() else None


def remember(table: CostTable) -> None:
    """Add to what is kept of this machine.

    Raises:
        OutputError: the folder cannot be written.
        UsageError: the table is of another machine.
    """
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {path.parent} cannot be made ({error.strerror}): name another in ONNXQ_CACHE_DIR"
        ) from error
    known = load_cached() or CostTable(machine=this_machine())
    merged = known.merge(table)
    costs = {key: cost.thinned(KEPT) for key, cost in merged.costs.items()}
    save(CostTable(machine=merged.machine, costs=costs), path)


def open_costs(path: Path | None = None) -> tuple[Costs, tuple[str, ...]]:
    """The costs to plan with, and sentences about where they come from.

    Args:
        path: a file of the user's; None: what was measured on this machine before. The shipped tables fill the gaps.

    Raises:
        ConfigError: the file is missing or has another form.
    """
    found = load(path) if path is not None else load_cached()
    rest = shipped()
    if found is not None:
        foreign = found.foreign()
        notes = (f"{path}: {foreign}.",) if foreign else ()
        return Costs((found, *rest)), notes
    of = f", of {rest[0].machine}," if rest else ""
    note = (
        f"No costs were measured on this machine: the shipped ones{of} are used; onnxq costs measure makes better ones."
    )
    return Costs(rest), (note,)


def shipped() -> tuple[CostTable, ...]:
    """The tables that come with onnxq: first those of this family of CPUs, of them first those that share most
    features with this one.
    """
    here = this_machine()
    folder = files("onnxq.costs") / "shipped"
    found = [
        parse(item.read_text(encoding="utf-8"), f"the shipped table {item.name}")
        for item in sorted(folder.iterdir(), key=lambda i: i.name)
        if item.name.endswith(".json")
    ]

    def far(table: CostTable) -> tuple[bool, int]:
        return table.machine.family != here.family, len({*table.machine.features} ^ {*here.features})

    return tuple(sorted(found, key=far))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _entry(key: CostKey, cost: Cost) -> dict[str, Any]:
    plain: dict[str, Any] = {"op": key.op, "inputs": list(map(str, key.inputs)), "outputs": list(map(str, key.outputs))}
    plain["attributes"] = {name: as_plain(value) for name, value in key.attributes}
    plain["threads"] = key.threads
    return plain | {name: list(values) for name, values in vars(cost).items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _check(plain: Any, types: Mapping[str, type]) -> None:
    if not isinstance(plain, dict):
        raise ValueError("it must be an object")  # noqa: TRY004 (all faults of a file are ValueErrors)
    for name in types:
        if name not in plain:
            raise ValueError(f'"{name}" is missing')
    for name, value in plain.items():
        if name not in types:
            raise ValueError(f'there is no "{name}" in version {VERSION}')
        if not isinstance(value, types[name]) or isinstance(value, bool):
            raise ValueError(f'"{name}" must be {_NAMES[types[name]]}')  # noqa: TRY004


_NAMES: dict[type, str] = {str: "a text", int: "an integer", list: "a list", dict: "an object"}


def _machine(plain: Any) -> Machine:
    _check(plain, {"cpu": str, "family": str, "features": list, "onnxruntime": str})
    return Machine(**{**plain, "features": tuple(_texts(plain["features"], "features"))})


def _texts(values: list[Any], name: str) -> list[str]:
    if not all(isinstance(v, str) for v in values):
        raise ValueError(f'"{name}" must be a list of texts')
    return values


def _read(plain: Any) -> tuple[CostKey, Cost]:
    _check(
        plain,
        {
            "op": str,
            "inputs": list,
            "outputs": list,
            "attributes": dict,
            "threads": int,
            "context": list,
            "alone": list,
        },
    )
    key = CostKey(
        op=plain["op"],
        inputs=tuple(map(Operand.parse, _texts(plain["inputs"], "inputs"))),
        outputs=tuple(map(Operand.parse, _texts(plain["outputs"], "outputs"))),
        attributes=tuple(sorted((name, _value(name, value)) for name, value in plain["attributes"].items())),
        threads=plain["threads"],
    )
    cost = Cost(context=_seconds(plain["context"]), alone=_seconds(plain["alone"]))
    if key.threads < 1:
        raise ValueError('"threads" must be at least 1')
    if not cost.observations:
        raise ValueError("it has no observation")
    return key, cost


def _value(name: str, value: Any) -> Value:
    if isinstance(value, list) and value:
        kinds = {type(v) for v in value}
        if kinds in ({int}, {str}):
            return tuple(value)
    elif type(value) in (int, str):
        return value  # type: ignore[no-any-return]
    raise ValueError(f'the attribute "{name}" must be an integer, a text or a list of one of them')


def _seconds(values: list[Any]) -> tuple[float, ...]:
    if not all(type(v) in (int, float) and math.isfinite(v) and v > 0 for v in values):
        raise ValueError("observations must be seconds above 0")
    return tuple(sorted({float(v) for v in values}))
