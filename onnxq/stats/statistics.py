"""What calibration collects: one value for the whole model, mergeable, with a file form (npz, exact floats).

File form, schema 1: a numpy `.npz` with one member `header` (UTF-8 JSON as uint8: schema, model hash, number of
samples, shapes, unreached, around, and per observer the tensors it saw) and, per observer and array of its state, two
members: `<observer>.<array>`, the arrays of all tensors one after the other, and `<observer>.<array>.sizes`, their
lengths. Equal statistics give equal bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import CalibrationError, OutputError
from onnxq.stats.observers import Histogram, MinMax, Observer, observer_class
from onnxq.stats.surroundings import Surroundings

SCHEMA = 1

_T = TypeVar("_T")
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class TensorStatistics:
    """What the observers saw of one tensor.

    Attributes:
        name: tensor.
        observers: observer name -> observer.
    """

    name: str
    observers: Mapping[str, Observer]

    @property
    def min(self) -> float:
        """Exact least value."""
        return self._minmax.min

    @property
    def max(self) -> float:
        """Exact greatest value."""
        return self._minmax.max

    @property
    def count(self) -> int:
        """Elements seen, over all samples."""
        return self._minmax.count

    @property
    def infinite(self) -> int:
        """Infinite elements that were left out (only tensors for which that was allowed)."""
        return self._minmax.infinite

    @property
    def histogram(self) -> Histogram:
        """The distribution.

        Raises:
            CalibrationError: it was not collected.
        """
        return _typed(self.observers.get(Histogram.name), Histogram, self.name)

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """Both together.

        Raises:
            CalibrationError: they hold different observers, or observers with different settings.
        """
        if self.observers.keys() != other.observers.keys():
            mine, theirs = (", ".join(sorted(s.observers)) for s in (self, other))
            raise CalibrationError(
                f'statistics of tensor "{self.name}" hold {mine} here and {theirs} there: '
                "collect both with the same observers"
            )
        merged: dict[str, Observer] = {}
        for name, observer in self.observers.items():
            merged[name] = observer.merge(other.observers[name])
        return TensorStatistics(name=self.name, observers=merged)

    @property
    def _minmax(self) -> MinMax:
        return _typed(self.observers.get(MinMax.name), MinMax, self.name)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of all observed tensors of one model.

    Attributes:
        model_hash: `onnxq.ir.hash.model_hash` of the graph they were collected on.
        samples: number of samples seen.
        tensors: tensor name -> statistics; only tensors of which at least one element was seen.
        shapes: tensor name -> shape seen; dimensions that differed between samples are the string "?".
        unreached: tensors that were asked for and never had an element (a branch that was never taken), sorted.
        around: tensor that was asked for -> what the ops around it say about its range; empty in files of before that
            was kept.
    """

    model_hash: str
    samples: int
    tensors: Mapping[str, TensorStatistics]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()
    around: Mapping[str, Surroundings] = field(default_factory=dict)

    def merge(self, other: Statistics) -> Statistics:
        """Statistics of the samples of both; associative and commutative.

        Raises:
            CalibrationError: they belong to different models or were collected with different observers.
        """
        if self.model_hash != other.model_hash:
            raise CalibrationError(
                f"statistics of two different models (hashes {self.model_hash[:12]} and "
                f"{other.model_hash[:12]}) cannot be merged: "
                "collect both on the same model"
            )
        tensors = dict(self.tensors)
        for name, theirs in other.tensors.items():
            tensors[name] = tensors[name].merge(theirs) if name in tensors else theirs
        shapes = dict(self.shapes)
        for name, shape in other.shapes.items():
            shapes[name] = merge_shapes(shapes.get(name), shape)
        unreached = (set(self.unreached) | set(other.unreached)) - tensors.keys()
        return Statistics(
            model_hash=self.model_hash,
            samples=self.samples + other.samples,
            tensors=dict(sorted(tensors.items())),
            shapes=dict(sorted(shapes.items())),
            unreached=tuple(sorted(unreached)),
            around=dict(sorted({**self.around, **other.around}.items())),
        )

    def check(self, model_hash: str) -> None:
        """Refuse to be used with another model than the one they were collected on.

        Raises:
            CalibrationError: the hash differs.
        """
        if self.model_hash != model_hash:
            raise CalibrationError(
                f"the statistics belong to another model (hash {self.model_hash[:12]}, this one has "
                f"{model_hash[:12]}): "
                "collect them again on this model"
            )

    def save(self, path: Path) -> None:
        """Write the npz, atomically.

        Raises:
            OutputError: it cannot be written.
        """
        observers = sorted({name for t in self.tensors.values() for name in t.observers})
        seen = {o: [n for n, t in sorted(self.tensors.items()) if o in t.observers] for o in observers}
        header = {
            "schema": SCHEMA,
            "model_hash": self.model_hash,
            "samples": self.samples,
            "shapes": {n: list(s) for n, s in sorted(self.shapes.items())},
            "unreached": list(self.unreached),
            "around": {n: s.plain() for n, s in sorted(self.around.items())},
            "observers": seen,
        }
        members: dict[str, NDArray[Any]] = {
            "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
        }
        for observer, names in seen.items():
            states = [self.tensors[n].observers[observer].state() for n in names]
            for key in sorted(states[0]):
                arrays = [s[key] for s in states]
                members[f"{observer}.{key}"] = np.concatenate(arrays)
                members[f"{observer}.{key}.sizes"] = np.array([a.size for a in arrays], dtype=np.int64)
        _write(path, members)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what `save` wrote.

        Raises:
            CalibrationError: no such file, not an npz of ours, damaged, or of a newer schema.
        """
        try:
            # np.load of a path forgets to close what it cannot read
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                members = {k: archive[k] for k in archive.files}
        except FileNotFoundError as error:
            raise CalibrationError(f"there is no statistics file {path}: write one with `onnxq calibrate`") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise CalibrationError(
                f"{path} is not a statistics file or is damaged ({error}): collect it again"
            ) from error
        try:
            return _decode(members)
        except _SchemaError as error:
            raise CalibrationError(
                f"{path} has statistics schema {error}, this onnxq reads {SCHEMA}: collect it again"
            ) from error
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"{path} is not a statistics file or is damaged ({error!r}): collect it again"
            ) from error


class _SchemaError(Exception):
    pass


def merge_all(parts: Iterable[Statistics]) -> Statistics:
    """The sum of at least one Statistics.

    Raises:
        CalibrationError: see `Statistics.merge`.
    """
    first, *rest = parts
    for part in rest:
        first = first.merge(part)
    return first


def merge_shapes(one: Shape | None, other: Shape) -> Shape:
    """The shape that covers both: dimensions that differ, and all of them if the ranks do, become "?".

    >>> merge_shapes((1, 3, 32, 32), (1, 3, 32, 48))
    (1, 3, 32, '?')
    """
    if one is None:
        return other
    if len(one) != len(other):
        return ("?",) * max(len(one), len(other))
    return tuple(a if a == b else "?" for a, b in zip(one, other, strict=True))


def _decode(members: Mapping[str, NDArray[Any]]) -> Statistics:
    header = json.loads(members["header"].tobytes().decode())
    if header["schema"] != SCHEMA:
        raise _SchemaError(header["schema"])
    found: dict[str, dict[str, Observer]] = {}
    for observer, names in header["observers"].items():
        kind = observer_class(observer)
        keys = [
            k.removeprefix(f"{observer}.") for k in members if k.startswith(f"{observer}.") and not k.endswith(".sizes")
        ]
        parts = {k: _split(members[f"{observer}.{k}"], members[f"{observer}.{k}.sizes"], len(names)) for k in keys}
        for position, name in enumerate(names):
            found.setdefault(name, {})[observer] = kind.from_state({k: parts[k][position] for k in keys})
    return Statistics(
        model_hash=header["model_hash"],
        samples=int(header["samples"]),
        tensors={n: TensorStatistics(name=n, observers=o) for n, o in sorted(found.items())},
        shapes={n: tuple(s) for n, s in header["shapes"].items()},
        unreached=tuple(header["unreached"]),
        around={n: Surroundings.of(s) for n, s in header.get("around", {}).items()},
    )


def _split(values: NDArray[Any], sizes: NDArray[Any], number: int) -> list[NDArray[Any]]:
    if len(sizes) != number or sizes.sum() != len(values):
        raise ValueError("array lengths do not add up")
    return np.split(values, np.cumsum(sizes)[:-1])


def _write(path: Path, members: dict[str, NDArray[Any]]) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, allow_pickle=False, **members)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"the statistics cannot be written to {path} ({error.strerror or error}): choose another path"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _typed(observer: object, kind: type[_T], tensor: str) -> _T:
    if not isinstance(observer, kind):
        name = getattr(kind, "name", kind.__name__)
        raise CalibrationError(
            f'the statistics of tensor "{tensor}" hold no {name}: collect them again with that observer'
        )
    return observer
