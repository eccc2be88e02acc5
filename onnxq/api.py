"""The Python API: what the commands do, as functions. Import it as `onnxq`; see docs/api.md.

Every function raises a leaf of `onnxq.OnnxqError` for what the user can mend; its text is one sentence that says what,
where and what to do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from onnxq import driver
from onnxq.config.gatefile import load_gate_job
from onnxq.config.job import Job, load_job
from onnxq.data.held import hold
from onnxq.errors import ConfigError, UsageError
from onnxq.gating import run as gating
from onnxq.progress import Progress
from onnxq.report import files, html
from onnxq.validate.result import Result

PathLike = str | os.PathLike[str]

Samples = PathLike | Callable[[], Iterable[Any]] | Iterable[Any]
"""Where samples come from:

* a path: a folder of pictures, arrays, texts or ONNX test data; a .npy, .npz or .txt file; or `file.py:function`;
* a function without arguments, called again for each run over the samples, or a list or another re-iterable object.
  An element is a mapping from input names to arrays, or, for a model of one input, an array; with a label, a pair of
  that and the label. Arrays have the shape and type that the model takes, batch axis included.
"""


def quantize(
    model: PathLike | None = None,
    calib: Samples | None = None,
    output: PathLike | None = None,
    *,
    evaluation: Samples | None = None,
    metric: str | None = None,
    target: str | None = None,
    method: str | None = None,
    pipeline: str | None = None,
    keep_float: Sequence[str] = (),
    statistics: PathLike | None = None,
    ranges: PathLike | None = None,
    preprocess: Mapping[str, Any] | None = None,
    calib_samples: int | None = None,
    eval_samples: int | None = None,
    threads: int | None = None,
    validate: bool | None = None,
    strict: bool | None = None,
    job: Job | PathLike | None = None,
    detail: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Turn a float model and samples into a checked int8 model.

    Args:
        model: the float model, an .onnx file; None: the job names it.
        calib: samples to find ranges with, a few hundred as a rule; None only with statistics, ranges or a job.
        output: where the int8 model goes; None: beside the model, as `<model>.int8.onnx`.
        evaluation: samples to judge with, labelled if the metric needs it; None: the calibration samples, which
            flatters the result.
        metric: labelled score: a registered name such as top1, `module:Class` or `file.py:Class`.
        target: `cpu` (default), `tensorrt` or one of a plugin.
        method: how ranges are found: minmax, percentile, entropy, mse, mixed, one of a plugin, or `auto` (default),
            which makes a model with each and takes the one whose outputs have the highest SQNR.
        pipeline: registered name or file; None: the target's.
        keep_float: shell patterns on node names, operator types and outputs.
        statistics, ranges: what `onnxq calibrate` and `onnxq ranges` wrote, instead of calibrating.
        preprocess: for pictures and texts: mean, std, scale, resize, crop, color, ... as in a job file.
        calib_samples, eval_samples: of them at most.
        threads: of ONNX Runtime, while calibrating and validating; None: all cores.
        validate: compare with the float model (default: do).
        strict: raise VerdictError if an op that multiplies and accumulates stays float.
        job: a job, or the path of a job file; the arguments above stand over it.
        detail: also compare layer by layer and hash what was read (`Result.layers`, `Result.run`): a second or so.
        progress: told of long work; None: silent.

    Returns:
        What was made and measured: `candidate` is the path of the int8 model; `sizes` in bytes; `latency`, one per
        number of threads, in milliseconds, with the median and the quartiles of paired ratios; `accuracy` with SQNR in
        dB (10 log10 of signal over noise energy) and the drop of the metric with a 95 % interval over paired samples,
        whose `method` names its rule (sources: `onnxq.validate.statistics`); `coverage` with a reason for each
        operator that stayed float.

    Raises:
        OnnxqError: one sentence; nothing is written then.
        VerdictError: `strict`, and a heavy op stayed float.
    """
    with ExitStack() as held:
        given = _job(job, model).with_overrides(
            model=_path(model),
            output=_path(output),
            calib=held.enter_context(hold(calib, "calib")),
            eval=held.enter_context(hold(evaluation, "evaluation")),
            metric=metric,
            target=target,
            method=method,
            pipeline=pipeline,
            keep_float=tuple(keep_float),
            statistics=_path(statistics),
            ranges=_path(ranges),
            preprocess=preprocess,
            calib_limit=calib_samples,
            eval_limit=eval_samples,
            threads=threads,
            validate=validate,
            strict=strict,
        )
        return driver.quantize(given, detail=detail, progress=progress)


def validate(
    reference: PathLike,
    candidate: PathLike,
    data: Samples | None = None,
    *,
    metric: str | None = None,
    samples: int | None = None,
    threads: int | None = None,
    speed: bool | None = None,
    preprocess: Mapping[str, Any] | None = None,
    job: Job | PathLike | None = None,
    detail: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Compare two forms of one model: outputs, score, speed, size, and what runs in integer kernels.

    Args:
        reference: the float model.
        candidate: the quantized one; its inputs and outputs have the same names, types and shapes.
        data: samples, labelled if the metric needs it; None: the job names them.
        metric: labelled score, as for `quantize`.
        samples: of them at most.
        threads: of ONNX Runtime; None: all cores, and speed with one as well.
        speed: measure latency (default: do).
        preprocess, job, detail, progress: as for `quantize`.

    Returns:
        As for `quantize`.

    Raises:
        OnnxqError: one sentence.
    """
    one, two = Path(reference), Path(candidate)
    with hold(data, "data") as path:
        given = _job(job, one).with_overrides(
            model=one,
            eval=path,
            metric=metric,
            eval_limit=samples,
            threads=threads,
            speed=speed,
            preprocess=preprocess,
        )
        return driver.validate(one, two, given, detail=detail, progress=progress)


def gate(
    baseline: PathLike,
    candidate: PathLike,
    data: Samples | None = None,
    *,
    limits: Mapping[str, Any] | PathLike | None = None,
    max_drop: float | str | None = None,
    metric: str | None = None,
    samples: int | None = None,
    threads: int | None = None,
    preprocess: Mapping[str, Any] | None = None,
    compare: PathLike | None = None,
    update_baseline: PathLike | None = None,
    detail: bool = True,
    progress: Progress | None = None,
) -> Result:
    """May this model ship? Measures what the limits ask for, and judges it with statistics.

    Args:
        baseline: the model to compare with, as a rule the float one.
        candidate: the model to judge.
        data: samples, labelled if a metric needs it; None: the file of limits names them.
        limits: a file of limits or a job file with a gate section, or a mapping with the keys of such a file, such as
            {"max_drop": 0.01, "min_speedup": 1.5, "size": {"max_ratio": 0.35}}.
        max_drop: of the metric: 0.01 in its unit, or "0.5%" of the baseline's score.
        metric, samples, threads, preprocess, detail, progress: as for `validate`.
        compare: a file that `update_baseline` wrote, to look for drift against.
        update_baseline: where to write what was measured, for later runs.

    Returns:
        `verdict` says it: `verdict.outcome` is pass, fail or inconclusive (the interval of what was measured holds the
        limit), `verdict.checks` has a sentence for each limit, `verdict.exit_code` is that of the command.

    Raises:
        OnnxqError: one sentence; no limit is given, for one.
    """
    one, two = Path(baseline), Path(candidate)
    with hold(data, "data") as path:
        given = _limits(limits, one).with_overrides(
            model=one,
            eval=path,
            metric=metric,
            eval_limit=samples,
            threads=threads,
            preprocess=preprocess,
            gate=None if max_drop is None else {"max_drop": max_drop},
        )
        return gating.gate(
            one,
            two,
            given,
            detail=detail,
            compare=_path(compare),
            update_baseline=_path(update_baseline),
            progress=progress,
        )


def write_report(result: Result, path: PathLike) -> None:
    """Write a result to a file: a page for a browser if the name ends in .html, else JSON (docs/report.md).

    Raises:
        OutputError: it cannot be written.
        UsageError: a page is asked for, and the extra `report` is not installed.
    """
    files.write(result, Path(path))


def read_report(path: PathLike) -> dict[str, Any]:
    """The JSON form of a result that was written as JSON (docs/report.md).

    Raises:
        UsageError: it is no such file.
    """
    return dict(html.read(Path(path)))


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _job(job: Job | PathLike | None, model: PathLike | None) -> Job:
    if isinstance(job, Job):
        return job
    if job is not None:
        return load_job(Path(job))
    if model is None:
        raise UsageError("no model is named: give model, or a job")
    return Job(model=Path(model))


def _limits(limits: Mapping[str, Any] | PathLike | None, baseline: Path) -> Job:
    if limits is None:
        return Job(model=baseline)
    if not isinstance(limits, Mapping):
        return load_gate_job(Path(limits), baseline)
    told = dict(limits)
    drift = told.get("drift")
    if isinstance(drift, Mapping) and "baseline" in drift:
        told["drift"] = {**drift, "baseline": str(Path(drift["baseline"]).resolve())}
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:  # the one reader for limits tells all faults
        file = Path(folder) / "limits"
        file.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
        try:
            return replace(load_gate_job(file, baseline), base=Path())
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), "limits")) from error
