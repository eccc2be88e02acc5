"""The committed baseline: what one run of the gate measured, in a file that later runs compare with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxq.config.gate import CoverageLimit, DriftLimit
from onnxq.errors import ConfigError, OutputError
from onnxq.reading.reader import read
from onnxq.validate.coverage import Coverage
from onnxq.validate.gate import Check, at_least, at_most, none_of, number
from onnxq.validate.layers import LayerAccuracy, Layers

SCHEMA = "onnxq.baseline/1"
"""Name and version of the file: keys are only added within a version."""

_BEST = 120.0
"""SQNR (dB) above which a difference is float rounding: an equal tensor has no finite one."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of the candidate, and on how many samples."""

    score: float | str
    samples: int
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class TensorScore:
    """As in `LayerAccuracy`; dB as a number or "Infinity"."""

    node: str
    op: str
    sqnr_db: float | str
    own_sqnr_db: float | str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What is committed.

    Attributes:
        schema: SCHEMA.
        candidate: name of the file that was judged.
        model_hash: of that file's graph, with all weights.
        samples: that scores rest on.
        size: bytes of the file.
        scores: metric -> score.
        tensors: quantized tensor -> how much it loses.
        integer_ops: operators in integer kernels.
        integer_macs: share of multiply-accumulates in them.
        packages: versions that it was measured with.
    """

    schema: str
    candidate: str
    model_hash: str
    samples: int
    size: int
    scores: Mapping[str, Score] = field(default_factory=dict)
    tensors: Mapping[str, TensorScore] = field(default_factory=dict)
    integer_ops: tuple[str, ...] = ()
    integer_macs: float | str = "NaN"
    packages: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> Baseline:
    """A committed baseline.

    Raises:
        ConfigError: it is not there, or does not follow the schema; every fault with its line and column.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no committed baseline {path}: write it with onnxq gate ... --update-baseline {path}"
        )
    found = read(path, Baseline)
    if found.schema != SCHEMA:
        raise ConfigError(
            f'{path}: the schema is "{found.schema}", this onnxq reads "{SCHEMA}": '
            "write it again with --update-baseline"
        )
    return found


def save(baseline: Baseline, path: Path) -> None:
    """Write it, one entry per line, so that a diff of two commits shows what moved.

    Raises:
        OutputError: it cannot be written.
    """
    text = json.dumps(_plain(baseline), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): give another path") from error


def tensors(layers: Layers) -> dict[str, TensorScore]:
    """In the form of the file."""
    return {
        t.tensor: TensorScore(node=t.node, op=t.op, sqnr_db=t.sqnr_db, own_sqnr_db=t.own_sqnr_db)
        for t in layers.tensors
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return float(f"{value:.6g}")
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def drift(committed: Baseline, now: Layers, scores: Mapping[str, Score], limit: DriftLimit) -> Iterator[Check]:
    """Which tensors lose more than they did, and which scores fell."""
    more = {"group": "drift", "warning": limit.on_failure == "warn"}
    if limit.max_sqnr_drop_db is not None:
        moved = list(_moved(committed, now, limit.max_sqnr_drop_db))
        compared = sum(t.tensor in committed.tensors for t in now.tensors)
        if not compared:
            faults = ["no tensor of the committed baseline is quantized in the candidate: update it"]
            yield none_of("drift of the layers", faults, "", **more)
        else:
            good = f"none of {compared} tensors lost more than {number(limit.max_sqnr_drop_db)} dB against the commit"
            yield none_of("drift of the layers", moved, good, **more)
    allowed = limit.score_drop
    if allowed is not None:
        for name, score in scores.items():
            before = committed.scores.get(name)
            if before is None:
                continue
            one, two = float(before.score), float(score.score)
            drop = 0.0 if one == two else (one - two if score.higher_is_better else two - one)
            most = allowed.value * abs(one) if allowed.relative else allowed.value
            check = at_most(f"drift of {name}", drop, most + 1e-12, "", **more)
            sentence = f"{name}: {number(one)} when committed -> {number(two)}, drop {number(drop)}, "
            verb = "within" if check.passed else "over"
            yield Check(**{**vars(check), "limit": most, "sentence": f"{sentence}{verb} the limit of {number(most)}"})


def _moved(committed: Baseline, now: Layers, most: float) -> Iterator[str]:
    """Tensors that lose more than before: first those that do so by their own encoding, then those behind them."""
    own: list[tuple[float, str]] = []
    behind: list[str] = []
    for tensor in now.tensors:
        before = committed.tensors.get(tensor.tensor)
        if before is None:
            continue
        drops = {
            kind: min(float(getattr(before, kind)), _BEST) - min(getattr(tensor, kind), _BEST)
            for kind in ("own_sqnr_db", "sqnr_db")
        }
        if drops["own_sqnr_db"] > most:
            text = f"its own encoding leaves {_db(tensor.own_sqnr_db)}, was {_db(before.own_sqnr_db)}"
            own.append((-drops["own_sqnr_db"], f"{_name(tensor)} moved: {text}"))
        elif drops["sqnr_db"] > most:
            behind.append(f"{_name(tensor)} is worse: {_db(tensor.sqnr_db)}, was {_db(before.sqnr_db)}")
    yield from (text for _, text in sorted(own))
    yield from behind


def _name(tensor: LayerAccuracy) -> str:
    return f"{tensor.op} {tensor.node}" if tensor.node else f"input {tensor.tensor}"


def _db(value: float | str) -> str:
    return f"{float(value):.1f} dB"


def coverage_checks(
    found: Coverage, limit: CoverageLimit, *, reference: Coverage | None, committed: Baseline | None
) -> Iterator[Check]:
    """Share of multiply-accumulates in integer kernels, and what was integer before.

    Args:
        found: of the candidate.
        reference: of the baseline's file.
    """
    if limit.min_integer_macs is not None:
        yield at_least("MACs in integer kernels", found.mac_share, limit.min_integer_macs, "", group="coverage")
    if limit.no_new_float:
        before = {o.name for o in reference.ops if o.integer} if reference is not None else set()
        before |= set(committed.integer_ops) if committed is not None else set()
        new = [
            f"{o.op} {o.name} is float: {o.reason}"
            for o in found.float_ops
            if o.name in before and not any(fnmatchcase(o.name, pattern) for pattern in limit.allow_float)
        ]
        good = f"all {len(before)} operators that were integer in the baseline still are, or are gone"
        if not before:
            good = "the baseline has no integer operator to compare with; commit one with --update-baseline"
        yield none_of("integer operators", new, good, group="coverage")
