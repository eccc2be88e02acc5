"""`onnxq quantize`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("quantize")
@click.argument("model", required=False, type=options.UserPath())
@click.option("--calib", metavar="DATA", help="Samples to calibrate with: a folder, a file, or module:function.")
@click.option(
    "--statistics", type=options.UserPath(), metavar="FILE", help="Do not calibrate: take what onnxq calibrate wrote."
)
@click.option(
    "--ranges", type=options.UserPath(), metavar="FILE", help="Do not calibrate: take what onnxq ranges wrote."
)
@click.option("-o", "--output", type=options.UserPath(), metavar="FILE", help="[default: MODEL with .int8.onnx]")
@click.option(
    "--target",
    metavar="NAME",
    shell_complete=options.complete("onnxq.targets"),
    help="What the model is to run on.  [default: cpu]",
)
@click.option(
    "--method",
    metavar="NAME",
    shell_complete=options.complete("onnxq.calibrators", "auto"),
    help="Calibration method.  [default: auto]",
)
@options.placement_options
@click.option("--eval", "evaluation", metavar="DATA", help="Samples to validate with, labelled if you have labels.")
@options.metric_option
@click.option(
    "--keep-float",
    multiple=True,
    metavar="PATTERN",
    help="Shell pattern of node names, op types or outputs; repeatable.",
)
@options.config_option
@click.option("--strict", is_flag=True, default=None, help="Fail (exit code 1) if a heavy op stays float.")
@click.option("--validate/--no-validate", "validate", default=None, help="Compare with the float model.  [default: do]")
@click.option(
    "--calib-samples", type=click.IntRange(min=1), metavar="N", help="Calibrate with at most so many samples."
)
@click.option("--eval-samples", type=click.IntRange(min=1), metavar="N", help="Validate with at most so many samples.")
@click.option("--reduce-range/--no-reduce-range", default=None, help="7-bit weights.  [default: as this CPU needs]")
@click.option(
    "--float-type",
    type=click.Choice(["float32", "float16"]),
    help="What ops that stay float compute in.  [default: the target's]",
)
@click.option(
    "--keep-overridable",
    is_flag=True,
    default=None,
    help="Keep initializers that are inputs, too, and what reads them float.",
)
@options.engine_options
@options.skip_bad_option
@options.threads_option
@options.preprocess_options
@options.json_option
@options.report_option
@debug_option
def command(
    *,
    model: Path | None,
    calib: str | None,
    statistics: Path | None,
    ranges: Path | None,
    output: Path | None,
    target: str | None,
    method: str | None,
    placement: str | None,
    effort: str | None,
    costs: Path | None,
    optimize: str | None,
    max_drop: str | None,
    min_sqnr_db: float | None,
    keep_best: bool | None,
    repair: str | None,
    evaluation: str | None,
    metric: str | None,
    keep_float: tuple[str, ...],
    config: Path | None,
    strict: bool | None,
    validate: bool | None,
    calib_samples: int | None,
    eval_samples: int | None,
    reduce_range: bool | None,
    float_type: str | None,
    keep_overridable: bool | None,
    cache: bool | None,
    workers: int | None,
    cluster: str | None,
    skip_bad: bool | None,
    threads: int | None,
    as_json: bool,
    report: Path | None,
    **preprocess: Any,
) -> int:
    """Turn a float model and samples into a checked int8 model.

    With --statistics or --ranges, samples are needed for nothing but the comparison at the end. MODEL and --calib
    may come from the job file that --config names.
    """
    from onnxq import api
    from onnxq.cli import output as printed

    job = options.start_job(config, model).with_overrides(
        model=model,
        output=output,
        target=target,
        reduce_range=reduce_range,
        float_type=float_type,
        statistics=statistics,
        ranges=ranges,
        calib=calib,
        eval=evaluation,
        preprocess=options.given(preprocess),
        skip_bad=skip_bad,
        method=method,
        placement=placement,
        effort=effort,
        costs=costs,
        optimize=optimize,
        max_drop=max_drop,
        min_sqnr_db=min_sqnr_db,
        keep_best=keep_best,
        repair=repair,
        calib_limit=calib_samples,
        keep_float=keep_float,
        keep_overridable=keep_overridable,
        validate=validate,
        metric=metric,
        eval_limit=eval_samples,
        threads=threads,
        cache=cache,
        workers=workers,
        cluster=cluster,
        strict=strict,
    )
    progress = printed.begin(report, job.model, job.output)
    result = api.quantize(job=job, detail=as_json or report is not None, progress=progress)
    return printed.emit(result, as_json=as_json, report=report)
