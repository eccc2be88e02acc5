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
@options.comparison_options
@debug_option
def command(
    *, baseline: Path, candidate: Path, max_drop: str | None, as_json: bool, report: Path | None, **values: Any
) -> int:
    """Judge a model against limits, exit code 0 or 1.

    More limits than --max-drop stand in the gate section of a job file.
    """
    from onnxq.cli import output
    from onnxq.gating.run import gate

    job = options.comparison_job(baseline, values, gate=options.given({"max_drop": max_drop}))
    result = gate(baseline, candidate, job, progress=output.begin(report, baseline, candidate))
    return output.emit(result, as_json=as_json, report=report)
