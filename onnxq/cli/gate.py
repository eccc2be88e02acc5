"""`onnxq gate`: may this model ship? The exit code is the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("gate")
@click.option("--baseline", required=True, type=options.UserPath(), metavar="MODEL", help="The model to compare with.")
@click.option("--candidate", required=True, type=options.UserPath(), metavar="MODEL", help="The model to judge.")
@click.option(
    "--data", metavar="DATA", help="Samples, labelled if you have labels: a folder, a file, or module:function."
)
@click.option("--max-drop", metavar="X", help="Of the metric: 0.01 in its unit, or 0.5% of the baseline's score.")
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
    baseline: Path,
    candidate: Path,
    data: str | None,
    max_drop: str | None,
    metric: str | None,
    config: Path | None,
    samples: int | None,
    skip_bad: bool | None,
    threads: int | None,
    as_json: bool,
    report: Path | None,
    **preprocess: Any,
) -> int:
    """Judge a model against limits, exit code 0 or 1.

    More limits than --max-drop stand in the gate section of a job file.
    """
    from onnxq import driver
    from onnxq.cli import output

    job = options.start_job(config, baseline).with_overrides(
        model=baseline,
        eval=data,
        preprocess=options.given(preprocess),
        skip_bad=skip_bad,
        metric=metric,
        eval_limit=samples,
        threads=threads,
        gate=options.given({"max_drop": max_drop}),
    )
    result = driver.gate(baseline, candidate, job, progress=output.begin(report, baseline, candidate))
    return output.emit(result, as_json=as_json, report=report)
