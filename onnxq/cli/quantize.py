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
@options.plan_options()
@options.placement_options
@click.option("--eval", "evaluation", metavar="DATA", help="Samples to validate with, labelled if you have labels.")
@options.metric_option
@click.option("--strict", is_flag=True, default=None, help="Fail (exit code 1) if a heavy op stays float.")
@click.option("--validate/--no-validate", "validate", default=None, help="Compare with the float model.  [default: do]")
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
@options.means_options
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
    strict: bool | None,
    validate: bool | None,
    eval_samples: int | None,
    reduce_range: bool | None,
    float_type: str | None,
    keep_overridable: bool | None,
    as_json: bool,
    report: Path | None,
    **planning: Any,
) -> int:
    """Turn a float model and samples into a checked int8 model.

    With --statistics or --ranges, samples are needed for nothing but the comparison at the end. MODEL and --calib
    may come from the job file that --config names.
    """
    from onnxq import api
    from onnxq.cli import output as printed

    job = options.planning_job(
        model,
        planning,
        output=output,
        reduce_range=reduce_range,
        float_type=float_type,
        statistics=statistics,
        ranges=ranges,
        calib=calib,
        eval=evaluation,
        placement=placement,
        effort=effort,
        costs=costs,
        optimize=optimize,
        max_drop=max_drop,
        min_sqnr_db=min_sqnr_db,
        keep_best=keep_best,
        repair=repair,
        keep_overridable=keep_overridable,
        validate=validate,
        metric=metric,
        eval_limit=eval_samples,
        strict=strict,
    )
    progress = printed.begin(report, job.model, job.output)
    result = api.quantize(job=job, detail=as_json or report is not None, progress=progress)
    return printed.emit(result, as_json=as_json, report=report)
