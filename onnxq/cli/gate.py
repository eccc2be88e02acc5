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
@click.option("--max-drop", metavar="X", help="Of the metric: 0.01 in its unit, or 0.5% of the baseline's score.")
@click.option("--junit", type=options.UserPath(), metavar="FILE", help="Write the checks as JUnit XML.")
@click.option("--summary", type=options.UserPath(), metavar="FILE", help="Add a summary in Markdown to this file.")
@click.option(
    "--update-baseline", type=options.UserPath(), metavar="FILE", help="Write what was measured; commit this file."
)
@click.option(
    "--compare", type=options.UserPath(), metavar="FILE", help="A committed baseline to look for drift against."
)
@options.comparison_options
@debug_option
def command(
    *,
    baseline: Path,
    candidate: Path,
    max_drop: str | None,
    junit: Path | None,
    summary: Path | None,
    update_baseline: Path | None,
    compare: Path | None,
    as_json: bool,
    report: Path | None,
    config: Path | None,
    **values: Any,
) -> int:
    """Judge a model against limits, with statistics.

    Exit code 0: all limits are kept; 1: one is broken; 2: bad usage or bad input; 3: these samples (or this machine)
    do not tell. --config takes a file of limits (docs/gate.md), or a job file with a gate section.
    """
    from onnxq.cli import gate_output, output
    from onnxq.config.gatefile import load_gate_job
    from onnxq.gating.run import gate

    start = load_gate_job(config, baseline) if config is not None else None
    job = options.comparison_job(baseline, values, start, gate=options.given({"max_drop": max_drop}))
    progress = output.begin(report, baseline, candidate)
    gate_output.begin((junit, summary, update_baseline), (baseline, candidate))
    result = gate(
        baseline,
        candidate,
        job,
        detail=report is not None,
        compare=compare,
        update_baseline=update_baseline,
        progress=progress,
    )
    gate_output.write(result, junit=junit, summary=summary)
    return output.emit(result, as_json=as_json, report=report)
