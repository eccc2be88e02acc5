"""The job file: model, data, target, pipeline, calibration, validation and gate of one run.

    model: model.onnx
    data:
      calib: {path: calib/}
      eval: {path: eval/}
      preprocess: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
    validate: {metric: top1}
    gate: {max_drop: 0.01}

Paths are relative to the file. What the command line says stands above what the file says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from onnxq.config.gate import GateSection, at_least
from onnxq.config.placing import PlacementSection
from onnxq.config.repair import RepairSection
from onnxq.data.preprocess import Preprocess
from onnxq.errors import UsageError
from onnxq.pipeline.calibration import CalibrationSection, check_settings
from onnxq.pipeline.spec import read_passes
from onnxq.reading.reader import find, parse
from onnxq.stats.weights import WeightMethod

PassItem = str | Mapping[str, Any]
"""A pass by name, `{name: {setting: value}}` or `{include: pipeline}`."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where samples come from.

    Attributes:
        path: a folder, a file, `file.py:function`, `module:function` or a registered name; relative to the job's base.
        preprocess: instead of the section's.
        limit: samples at most.
    """

    path: str
    preprocess: Preprocess | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise UsageError("path must name a folder, a file or a function, and is empty")
        at_least(1, limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Samples.

    Attributes:
        calib: to calibrate with.
        eval: to judge with, if possible with labels; None: judge on the calibration samples.
        preprocess: for pictures and texts of both.
        skip_bad: leave damaged files out and count them.
    """

    calib: Source | None = None
    eval: Source | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    skip_bad: bool = False

    def preprocess_of(self, source: Source) -> Preprocess:
        """The source's own settings, else the section's."""
        return source.preprocess or self.preprocess


@dataclass(frozen=True, kw_only=True)
class ValidateSection:
    """How the result is compared with the float model.

    Attributes:
        enabled: compare at all.
        metric: registered name, or `file.py:Class` relative to the job's base; None: no labelled score.
        limit: samples at most.
        threads: of ONNX Runtime; None is its default.
        speed: measure latency.
        runs: timed pairs; None: as many as fit a few seconds.
        warmup: untimed runs of each model before.
    """

    enabled: bool = True
    metric: str | None = None
    limit: int | None = None
    threads: int | None = None
    speed: bool = True
    runs: int | None = None
    warmup: int = 2

    def __post_init__(self) -> None:
        at_least(1, limit=self.limit, threads=self.threads, runs=self.runs)
        at_least(0, warmup=self.warmup)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of onnxq.

    Attributes:
        model: the float model.
        output: where the quantized model goes; None: beside the model.
        target: registered target.
        reduce_range: force 7-bit (True) or 8-bit (False) weights; None: the CPU decides, for targets that say so.
        float_type: in which ops that stay float compute; None: as the target's file says.
        data, calibration, placement, repair, validate, gate: sections.
        statistics: instead of calibrating, what `onnxq calibrate` wrote.
        ranges: instead of calibrating, what `onnxq ranges` wrote.
        keep_float: patterns of nodes that stay float.
        keep_overridable: leave initializers that are also graph inputs overridable.
        pipeline: registered name, file relative to the base, or the passes themselves; None: the target's.
        strict: a heavy op that stays float is an error.
        base: the folder of the job file, that `Source.path`, `metric` and `pipeline` are relative to.
    """

    model: Path
    output: Path | None = None
    target: str = "cpu"
    reduce_range: bool | None = None
    float_type: Literal["float32", "float16"] | None = None
    data: DataSection = DataSection()
    calibration: CalibrationSection = field(default_factory=CalibrationSection)
    placement: PlacementSection = field(default_factory=PlacementSection)
    repair: RepairSection = field(default_factory=RepairSection)
    statistics: Path | None = None
    ranges: Path | None = None
    keep_float: tuple[str, ...] = ()
    keep_overridable: bool = False
    pipeline: str | tuple[PassItem, ...] | None = None
    validate: ValidateSection = ValidateSection()
    gate: GateSection = field(default_factory=GateSection)
    strict: bool = False
    base: Path = field(default=Path(), metadata={"yaml": False})

    def with_overrides(
        self,
        *,
        model: Path | None = None,
        output: Path | None = None,
        target: str | None = None,
        reduce_range: bool | None = None,
        float_type: str | None = None,
        calib: str | None = None,
        eval: str | None = None,
        preprocess: Mapping[str, Any] | None = None,
        skip_bad: bool | None = None,
        statistics: Path | None = None,
        ranges: Path | None = None,
        method: str | None = None,
        settings: Mapping[str, Any] | None = None,
        weights: WeightMethod | None = None,
        calib_limit: int | None = None,
        cache: bool | None = None,
        workers: int | None = None,
        cluster: str | None = None,
        placement: str | None = None,
        effort: str | None = None,
        costs: Path | None = None,
        optimize: str | None = None,
        max_drop: str | None = None,
        min_sqnr_db: float | None = None,
        keep_best: bool | None = None,
        repair: str | None = None,
        keep_float: Sequence[str] = (),
        keep_overridable: bool | None = None,
        pipeline: str | None = None,
        validate: bool | None = None,
        metric: str | None = None,
        eval_limit: int | None = None,
        threads: int | None = None,
        speed: bool | None = None,
        runs: int | None = None,
        warmup: int | None = None,
        gate: Mapping[str, Any] | None = None,
        strict: bool | None = None,
    ) -> Job:
        """The job with what the command line says put over it; None leaves a value as it is.

        Paths given here are relative to the current folder. `keep_float` adds to the file's patterns; `preprocess`
        and `gate` replace single settings; another `method` leaves the settings of the file's method behind;
        `threads` are those of calibration and of validation.

        Raises:
            UsageError: a value that makes no sense.
        """
        data = self.data
        if preprocess:
            changed = Preprocess.from_mapping(preprocess)
            data = replace(data, preprocess=replace(data.preprocess, **{k: getattr(changed, k) for k in preprocess}))
        calibration = self.calibration
        if method is not None and method != calibration.method:
            calibration = replace(calibration, settings={})
        return replace(
            self,
            **_given(
                model=model, output=output, statistics=statistics, ranges=ranges, target=target,
                reduce_range=reduce_range, float_type=float_type, strict=strict,
                keep_overridable=keep_overridable, pipeline=self._from_here(pipeline, files_only=True),
            ),
            keep_float=(*self.keep_float, *keep_float),
            data=replace(
                data,
                **_given(
                    calib=self._source(calib), eval=self._source(eval), skip_bad=skip_bad
                ),
            ),
            calibration=replace(
                calibration,
                **_given(
                    method=method, settings=settings, weights=weights, limit=calib_limit, threads=threads,
                    cache=cache, workers=workers, cluster=cluster,
                ),
            ),
            placement=replace(
                self.placement,
                **_given(
                    by=placement, effort=effort, costs=costs, optimize=optimize, max_drop=max_drop,
                    min_sqnr_db=min_sqnr_db, keep_best=keep_best,
                ),
            ),
            repair=replace(self.repair, **_given(use=repair)),
            validate=replace(
                self.validate,
                **_given(
                    enabled=validate, metric=self._from_here(metric, files_only=True), limit=eval_limit,
                    threads=threads, speed=speed, runs=runs, warmup=warmup,
                ),
            ),
            gate=replace(self.gate, **_given(**(gate or {}))),
        )  # fmt: skip

    def _source(self, path: str | None) -> Source | None:
        """A source of the command line; the file's own settings belong to the file's source."""
        moved = self._from_here(path)
        return None if moved is None else Source(path=moved)

    def _from_here(self, text: str | None, *, files_only: bool = False) -> str | None:
        """A path relative to the current folder as one relative to the base; other references stay.

        With `files_only`, a plain word is a registered name and only `*.py:name` and `*.yaml` are files.
        """
        if text is None or self.base.resolve() == Path.cwd():
            return text
        head, colon, tail = text.rpartition(":")
        if colon and head.endswith(".py"):
            return f"{os.path.relpath(head, self.base)}:{tail}"
        is_file = text.endswith((".yaml", ".yml")) if files_only else Path(text).exists()
        return os.path.relpath(text, self.base) if is_file else text


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def load_job(path: Path) -> Job:
    """A job file, with its paths resolved against its folder.

    The settings of the calibration method and of passes that are written out are checked against their classes.

    Raises:
        ConfigError: every fault of the file.
    """
    reader, root = parse(path)
    job = reader.read_node(root, Job)
    check_settings(reader, root)
    passes = find(root, "pipeline")
    if isinstance(passes, yaml.SequenceNode):
        read_passes(reader, passes, path.parent, "pipeline")
    reader.finish()
    assert isinstance(job, Job)
    base = path.parent
    named = {name: getattr(job, name) for name in ("output", "statistics", "ranges")}
    moved: dict[str, Any] = {name: base / path for name, path in named.items() if path is not None}
    if job.placement.costs is not None:
        moved["placement"] = replace(job.placement, costs=base / job.placement.costs)
    return replace(job, base=base, model=base / job.model, **moved)
