"""What was found, as a value and as a file.

Of an output, over all elements of all samples, in float64:

    signal    S = sum x^2               x: the float model
    noise     N = sum (x - y)^2         y: the same model with some tensors rounded
    relative  N / S,   SQNR = 10 log10(S / N) dB

An element that is finite in x and not in y, and every element of an output whose shape changed, counts as lost:
its noise is x^2. Of outputs that are not float, the share of elements that differ takes the place of N / S.

The noise of a tensor is the mean of N / S over the float outputs (over all outputs, if none is float) with this tensor
alone rounded; in front of a last Softmax, Sigmoid, HardSigmoid or Tanh, since behind these noise does not add up.

Rounding errors of different tensors are nearly uncorrelated and small, so to first order their energies at the output
add up, and the noises of tensors predict that of all together: Lin, Talathi and Annapureddy 2016 (arXiv 1511.06393);
Zhou et al. 2018 (arXiv 1712.01048). `predicted` and `measured` say how well. A tensor that is moved from others with
the same encoding has their error once more, not another one: beside them it does not count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError
from onnxq.ir.files import write_text
from onnxq.validate.metrics.fidelity import decibels

SCHEMA = 2
"""Version of the file. A field that is added keeps it; one that is renamed or means something else raises it."""


@dataclass(frozen=True, kw_only=True)
class OutputNoise:
    """One output with some tensors rounded, against the float model.

    Attributes:
        name: of the output.
        floating: it is float; else only `elements` and `equal` mean something.
        signal, noise: energies, square of the output's unit.
        elements, equal: compared, and equal to the bit.
        lost: elements that became NaN or infinite, or whose output changed its shape.
        head: what the op that makes the output reads, if that op saturates (Softmax, Sigmoid ...); stands for the
            output in the mean.
    """

    name: str
    floating: bool
    signal: float
    noise: float
    elements: int
    equal: int
    lost: int
    head: OutputNoise | None = None

    @property
    def relative(self) -> float:
        """Noise energy over signal energy; of an output that is not float the share of elements that differ."""
        if not self.floating:
            return 1.0 - self.equal / self.elements if self.elements else 0.0
        if self.signal == 0.0:
            return 0.0 if self.noise == 0.0 else math.inf
        return self.noise / self.signal

    @property
    def sqnr_db(self) -> float:
        """dB; infinite without noise."""
        return decibels(1.0, self.relative)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a set of rounded tensors does to the model.

    Attributes:
        outputs: in the order of the model.
        noise: mean of `relative`, see `onnxq.sensitivity.result`.
        score: of the metric; None without one.
        drop: how much worse than the float model (positive: worse), unit of the metric.
    """

    outputs: tuple[OutputNoise, ...]
    noise: float
    score: float | None = None
    drop: float | None = None

    @property
    def sqnr_db(self) -> float:
        """Of the mean noise, dB."""
        return decibels(1.0, self.noise)


@dataclass(frozen=True, kw_only=True)
class TensorSensitivity:
    """A quantized tensor.

    Attributes:
        tensor, kind, type: its name in the normalised float model; activation, weight or bias; its integers.
        node, op: what makes the activation ("" for an input of the model), what reads the constant first.
        units: the integer ops that make or read it.
        follows: tensors that it is moved from, as they are, with the same encoding: where these are rounded, its
            rounding changes nothing, and its noise is no noise of its own.
        alone: only this tensor rounded; None if the time was over before.
        rest: all but this one rounded; None unless asked for and measured.
        estimate: of the noise, if it was not measured: by what rounding does to the tensor itself, see
            `onnxq.sensitivity.loudness`.
        share: of the sum of all tensors' noise, 0 to 1; 0 of a tensor that follows others.
    """

    tensor: str
    kind: str
    type: str
    node: str
    op: str
    units: tuple[str, ...]
    follows: tuple[str, ...]
    alone: Effect | None
    rest: Effect | None = None
    estimate: float | None = None
    share: float = 0.0

    @property
    def noise(self) -> float:
        """With this tensor alone; the estimate where that was not measured, NaN without one."""
        if self.alone is not None:
            return self.alone.noise
        return math.nan if self.estimate is None else self.estimate


@dataclass(frozen=True, kw_only=True)
class UnitSensitivity:
    """An integer op: its inputs, weight, bias and output.

    Attributes:
        node, op: of the float model.
        tensors: that it makes or reads and that are quantized.
        summed: sum of the tensors' noise, see `predict`.
        together: all of them rounded, measured; None unless asked for and measured.
        owned: the part of `summed` that is this op's when each tensor's noise is split evenly among the ops that make
            or read it: the sum over all ops is the sum over all tensors.
    """

    node: str
    op: str
    tensors: tuple[str, ...]
    summed: float
    owned: float
    together: Effect | None = None

    @property
    def noise(self) -> float:
        """Measured together if that was asked for, else the sum."""
        return self.summed if self.together is None else self.together.noise


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What each quantized tensor of a model does to its outputs.

    Attributes:
        model_hash, plan_hash: of the normalised float model and of the plan.
        samples, data: that noise was measured on.
        eval_samples, eval_data, metric, higher_is_better, score: of the labelled score; `score` is the float model's.
        tensors, units: in the order of the graph; `ranked` has the loudest first.
        total: everything rounded.
        seconds: that measuring was given; None: no limit.
        notes: sentences for the user.
    """

    model_hash: str
    plan_hash: str
    samples: int
    data: str
    tensors: tuple[TensorSensitivity, ...]
    units: tuple[UnitSensitivity, ...]
    total: Effect
    eval_samples: int = 0
    eval_data: str = ""
    metric: str = ""
    higher_is_better: bool = True
    score: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def unmeasured(self) -> int:
        """Tensors for which there was no time, whose noise is an estimate."""
        return sum(t.alone is None for t in self.tensors)

    @property
    def predicted(self) -> float:
        """Sum of all tensors' noise: what additivity says of the total."""
        return predict(self.tensors)

    @property
    def measured(self) -> float:
        """Noise with everything rounded."""
        return self.total.noise

    @property
    def ranked(self) -> list[TensorSensitivity]:
        """The loudest first; equal ones in the order of the graph."""
        return sorted(self.tensors, key=lambda t: -t.noise)

    def to_json(self) -> str:
        """The file: every number of it reads back to the bit; infinities and NaN are texts."""
        return json.dumps({"schema": SCHEMA, **_plain(self)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Sensitivity:
        """What `to_json` wrote.

        Raises:
            ConfigError: it is something else, or of another schema.
        """
        try:
            raw = json.loads(text)
            schema = raw.pop("schema")
            if schema != SCHEMA:
                raise ConfigError(
                    f"{where} has schema {schema}, this onnxq reads {SCHEMA}: run onnxq sensitivity again"
                )
            return cls(
                **{
                    **_only(cls, raw),
                    "tensors": tuple(_tensor(t) for t in raw["tensors"]),
                    "units": tuple(_unit(u) for u in raw["units"]),
                    "total": _effect(raw["total"]),
                    "score": _number(raw["score"]),
                    "seconds": _number(raw["seconds"]),
                    "notes": tuple(raw["notes"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{where} holds no sensitivities ({error}): give a file that onnxq sensitivity -o wrote"
            ) from error

    def save(self, path: Path) -> None:
        """Write `to_json`.

        Raises:
            OutputError: the file cannot be written.
        """
        write_text(path, self.to_json(), "-o")

    @classmethod
    def load(cls, path: Path) -> Sensitivity:
        """Read a file of `save`.

        Raises:
            ConfigError: it cannot be read or holds something else.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}): name a file that onnxq sensitivity -o wrote"
            ) from error
        return cls.from_json(text, str(path))


def noise(found: Sensitivity, *, owned: bool = False) -> Mapping[str, float]:
    """Noise by integer op: relative output noise energy that quantizing its inputs, weight, bias and output causes.

    Tensors between two ops count for both, so a sum over ops is an upper estimate; with `owned`, each tensor's noise
    is split among its ops, and the sum over all of them is `predicted`. Ops are in the order of the graph; what the
    plan leaves float is not there.
    """
    return {unit.node: unit.owned if owned else unit.noise for unit in found.units}


def tensor_noise(found: Sensitivity) -> Mapping[str, float]:
    """Noise by quantized tensor, with this one alone, in the order of the graph. `predict` says what a set makes."""
    return {tensor.tensor: tensor.noise for tensor in found.tensors}


def predict(tensors: Iterable[TensorSensitivity]) -> float:
    """The noise of a set of tensors rounded together: the sum of theirs, without those that follow others of it."""
    some = list(tensors)
    names = {t.tensor for t in some}
    return math.fsum(t.noise for t in some if not t.follows or not names.issuperset(t.follows))


def mean_noise(outputs: Sequence[OutputNoise]) -> float:
    """Mean of N / S over the float outputs that have a signal; over all outputs, if none is float."""
    floating = [o.head or o for o in outputs if o.floating]
    heard = [o for o in floating if o.signal > 0.0] or floating or outputs
    return math.fsum(o.relative for o in heard) / len(heard) if heard else 0.0


def _plain(value: Any) -> Any:
    """Fields only (what follows from them is computed again), JSON's types only."""
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):  # as in every report: float() and Number() read these
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _only(cls: type[Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows: fields that a later one adds are passed over."""
    return {f.name: raw[f.name] for f in fields(cls) if f.name in raw}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _output(raw: Mapping[str, Any]) -> OutputNoise:
    head = None if raw["head"] is None else _output(raw["head"])
    numbers = {"signal": float(raw["signal"]), "noise": float(raw["noise"])}
    return OutputNoise(**{**_only(OutputNoise, raw), **numbers, "head": head})


def _effect(raw: Mapping[str, Any]) -> Effect:
    return Effect(
        outputs=tuple(_output(o) for o in raw["outputs"]),
        noise=float(raw["noise"]),
        score=_number(raw["score"]),
        drop=_number(raw["drop"]),
    )


def _maybe(raw: Mapping[str, Any] | None) -> Effect | None:
    return None if raw is None else _effect(raw)


def _tensor(raw: Mapping[str, Any]) -> TensorSensitivity:
    return TensorSensitivity(
        **{
            **_only(TensorSensitivity, raw),
            "units": tuple(raw["units"]),
            "follows": tuple(raw["follows"]),
            "alone": _maybe(raw["alone"]),
            "rest": _maybe(raw["rest"]),
            "estimate": _number(raw["estimate"]),
            "share": float(raw["share"]),
        }
    )


def _unit(raw: Mapping[str, Any]) -> UnitSensitivity:
    return UnitSensitivity(
        **{
            **_only(UnitSensitivity, raw),
            "tensors": tuple(raw["tensors"]),
            "summed": float(raw["summed"]),
            "owned": float(raw["owned"]),
            "together": _maybe(raw["together"]),
        }
    )
