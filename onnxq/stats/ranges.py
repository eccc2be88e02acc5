"""Ranges as a file that people read and edit: a view of statistics through one calibrator.

    {
     "schema": 1,
     "model_hash": "5f0c...",
     "method": "percentile",
     "settings": {"percentile": 99.99},
     "type": "uint8",
     "symmetric": false,
     "samples": 256,
     "ranges": {
      "conv1": {"min": -1.25, "max": 3.5},
      "rare": null
     },
     "shapes": {"conv1": [1, 8, 28, 28]}
    }

Numbers are written with the fewest digits that read back as the same float64. `null` is a tensor without a range: what
needs one stays float. The file is read strictly: every fault is reported with its line.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.encoding import Scheme
from onnxq.errors import CalibrationError, ConfigError, OutputError, UsageError
from onnxq.reading.reader import read
from onnxq.stats.calibrator import Calibrator, FeelingCalibrator
from onnxq.stats.statistics import Statistics, TensorStatistics
from onnxq.stats.surroundings import Surroundings
from onnxq.stats.weights import WeightMethod, weight_range

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Least and greatest real number that quantization keeps."""

    min: float
    max: float

    def __post_init__(self) -> None:
        for name in ("min", "max"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} must be a finite number, not {getattr(self, name)}")
        if self.min > self.max:
            raise UsageError(f"min is {self.min!r}, which is more than max, {self.max!r}: exchange them")

    @property
    def width(self) -> float:
        return self.max - self.min


@dataclass(frozen=True, kw_only=True)
class RangeTable:
    """Ranges of the activations of one model; its fields are the file's.

    Attributes:
        schema: of the file.
        model_hash: of the normalised graph.
        method, settings: of the calibrator.
        type, symmetric: of the encoding that the ranges were chosen for.
        samples: that the statistics saw.
        ranges: tensor -> range; None: no sample reached it, or it is to stay float.
        shapes: as `Statistics.shapes`.
    """

    schema: int
    model_hash: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    type: str
    symmetric: bool
    samples: int
    ranges: Mapping[str, Bounds | None]
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise UsageError(f"schema is {self.schema}, but this onnxq reads {SCHEMA}: make the ranges again")

    @property
    def unreached(self) -> tuple[str, ...]:
        """Tensors without a range."""
        return tuple(sorted(name for name, bounds in self.ranges.items() if bounds is None))

    def save(self, path: Path) -> None:
        """Write the file, all of it or nothing.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=path.parent) as folder:
                made = Path(folder) / path.name
                made.write_text(self.to_json(), encoding="utf-8")
                made.replace(path)
        except OSError as error:
            raise OutputError(
                f"the ranges cannot be written to {path} ({error.strerror or error}): choose another path"
            ) from error

    def to_json(self) -> str:
        """One line per tensor, sorted by name."""
        head = {name: getattr(self, name) for name in ("schema", "model_hash", "method", "settings")}
        head |= {name: getattr(self, name) for name in ("type", "symmetric", "samples")}
        lines = [f" {_text(name)}: {_text(value)}," for name, value in head.items()]
        plain = {name: None if b is None else {"min": b.min, "max": b.max} for name, b in self.ranges.items()}
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        return "\n".join(["{", *lines, *_block("ranges", plain, ","), *_block("shapes", shapes, ""), "}", ""])

    @classmethod
    def load(cls, path: Path) -> RangeTable:
        """Read a file.

        Raises:
            ConfigError: every fault with its line.
        """
        if path.suffix == ".npz":
            raise ConfigError(f"{path} holds statistics, not ranges: make ranges with `onnxq ranges {path}`")
        return read(path, cls)

    def check(self, model_hash: str) -> None:
        """Refuse to be used with another model.

        Raises:
            CalibrationError: the hash differs.
        """
        if self.model_hash != model_hash:
            raise CalibrationError(
                f"the ranges belong to another model (hash {self.model_hash[:12]}, this one has {model_hash[:12]}): "
                "make them again from this model's statistics"
            )


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _block(name: str, values: Mapping[str, Any], end: str) -> list[str]:
    lines = [f"  {_text(key)}: {_text(value)}" for key, value in sorted(values.items())]
    return [f" {_text(name)}: {{", *(f"{line}," for line in lines[:-1]), *lines[-1:], f" }}{end}"]


class GivenRanges:
    """What planning asks of calibration, from a file. Weights have no place in it: their values are known."""

    def __init__(self, table: RangeTable, weight_method: WeightMethod) -> None:
        self.table = table
        self.weight_method: WeightMethod = weight_method

    def range(self, tensor: str, scheme: Scheme) -> tuple[float, float] | None:  # noqa: ARG002 (chosen already)
        """See `onnxq.plan.vetoes.Ranges`."""
        bounds = self.table.ranges.get(tensor)
        return None if bounds is None else (bounds.min, bounds.max)

    def weight_range(self, weight: NDArray[Any], scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `onnxq.plan.vetoes.Ranges`."""
        return weight_range(weight, scheme, self.weight_method)


def range_of(
    found: TensorStatistics, calibrator: Calibrator, scheme: Scheme, around: Surroundings
) -> tuple[float, float]:
    """The range that a calibrator chooses for a tensor, with what the ops around the tensor say.

    Raises:
        CalibrationError: the statistics lack what the calibrator reads.
    """
    if isinstance(calibrator, FeelingCalibrator):
        bounds = calibrator.range_felt(found, scheme, around.readers)
    else:
        bounds = calibrator.range(found, scheme)
    return around.within(*bounds, found)


def make_ranges(
    statistics: Statistics, method: str, settings: Mapping[str, Any], calibrator: Calibrator, scheme: Scheme
) -> RangeTable:
    """The range of every tensor of the statistics, as a calibrator chooses it and `onnxq quantize` takes it.

    Raises:
        CalibrationError: the statistics lack what the calibrator reads.
    """
    ranges: dict[str, Bounds | None] = dict.fromkeys(statistics.unreached)
    for name, found in statistics.tensors.items():
        low, high = range_of(found, calibrator, scheme, statistics.around.get(name, Surroundings()))
        ranges[name] = Bounds(min=float(low), max=float(high))
    return RangeTable(
        schema=SCHEMA,
        model_hash=statistics.model_hash,
        method=method,
        settings=dict(settings),
        type=scheme.type,
        symmetric=scheme.symmetric,
        samples=statistics.samples,
        ranges=dict(sorted(ranges.items())),
        shapes=dict(statistics.shapes),
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor whose ranges differ.

    Attributes:
        tensor: name.
        one, other: its ranges; None: it has none there.
        relative: the larger shift of an end over the width of the wider range; infinite if one has none.
    """

    tensor: str
    one: Bounds | None
    other: Bounds | None
    relative: float


def differences(one: Mapping[str, Bounds | None], other: Mapping[str, Bounds | None]) -> list[Difference]:
    """The tensors whose ranges differ, largest relative difference first.

    >>> [found] = differences({"x": Bounds(min=0, max=4)}, {"x": Bounds(min=0, max=5)})
    >>> found.relative
    0.2
    """
    out: list[Difference] = []
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        if a == b:
            continue
        relative = math.inf
        if a is not None and b is not None and max(a.width, b.width) > 0:
            relative = max(abs(a.min - b.min), abs(a.max - b.max)) / max(a.width, b.width)
        out.append(Difference(tensor=name, one=a, other=b, relative=relative))
    return sorted(out, key=lambda d: -d.relative)
