"""`onnxq validate`: two forms of one model, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("validate")
@click.argument("fp32", type=options.UserPath())
@click.argument("int8", type=options.UserPath())
@click.option(
    "--data", metavar="DATA", help="Samples, labelled if you have labels: a folder, a file, or module:function."
)
@options.metric_option
@options.config_option
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use at most so many samples.")
@options.skip_bad_option
@options.threads_option
@options.preprocess_options
@options.json_option
@options.report_option
@debug_option
def command(
    *,
    fp32: Path,
    int8: Path,
    data: str | None,
    metric: str | None,
    config: Path | None,
    samples: int | None,
    skip_bad: bool | None,
    threads: int | None,
    as_json: bool,
    report: Path | None,
    **preprocess: Any,
) -> int:
    """Compare a quantized model with its float form.

    Accuracy, speed, and what runs in integer kernels.
    """
    from onnxq import driver
    from onnxq.cli import output

    job = options.start_job(config, fp32).with_overrides(
        model=fp32,
        eval=data,
        preprocess=options.given(preprocess),
        skip_bad=skip_bad,
        metric=metric,
        eval_limit=samples,
        threads=threads,
    )
    return output.emit(
        driver.validate(fp32, int8, job, progress=output.begin(report, fp32, int8)), as_json=as_json, report=report
    )
