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
@options.comparison_options
@debug_option
def command(*, fp32: Path, int8: Path, as_json: bool, report: Path | None, **values: Any) -> int:
    """Compare a quantized model with its float form.

    Accuracy, speed, and what runs in integer kernels.
    """
    from onnxq import api
    from onnxq.cli import output

    job = options.comparison_job(fp32, values)
    progress = output.begin(report, fp32, int8)
    result = api.validate(fp32, int8, job=job, detail=as_json or report is not None, progress=progress)
    return output.emit(result, as_json=as_json, report=report)
