"""`onnxq sensitivity`: which quantized tensor costs how much of the output error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option
from onnxq.errors import UsageError

if TYPE_CHECKING:
    from onnxq.sensitivity.result import Sensitivity


@click.command("sensitivity")
@click.argument("model", required=False, type=options.UserPath())
@click.option("--calib", metavar="DATA", help="Samples to calibrate and to measure noise on.")
@click.option("--eval", "judged", metavar="DATA", help="Labelled samples for the score.")
@options.metric_option
@click.option("-o", "--output", type=options.UserPath(), metavar="FILE", help="Where the figures go (JSON).")
@click.option(
    "--plot", type=options.UserPath(), metavar="FILE", help="The worst 40 as bars: a page for .html, else SVG."
)
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Rows to print.")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Measure noise on so many.",
)
@click.option(
    "--eval-samples",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Measure the score on so many.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="Measure no longer, the quiet tensors last, which are estimated then; 0: no limit.",
)
@click.option("--rest", is_flag=True, help="Also measure what is left without each tensor.")
@click.option("--units", is_flag=True, help="Also measure the tensors of each op together.")
@options.plan_options()
@options.means_options
@options.json_option
@debug_option
def command(
    *,
    model: Path | None,
    calib: str | None,
    judged: str | None,
    metric: str | None,
    output: Path | None,
    plot: Path | None,
    top: int,
    samples: int,
    eval_samples: int,
    time_limit: float,
    rest: bool,
    units: bool,
    as_json: bool,
    **planning: Any,
) -> None:
    """Measure how much of the output error each quantized tensor causes alone, and how much score.

    The plan is the one that onnxq quantize makes with the same options.
    """
    from onnxq.ir.files import check_writable
    from onnxq.report.progress import make_progress
    from onnxq.sensitivity.engine import Options
    from onnxq.workbench.sensitivity import measure

    job = options.planning_job(model, planning, calib=calib, eval=judged, metric=metric)
    if judged is not None and job.validate.metric is None:
        raise UsageError("evaluation data are given and no metric: give --metric NAME, or leave --eval out")
    for path in (output, plot):
        if path is not None:
            check_writable(path)
    if plot is not None:
        _check_plots()
    wanted = Options(samples=samples, eval_samples=eval_samples, rest=rest, units=units, seconds=time_limit or None)
    found = measure(job, wanted, progress=make_progress())
    _write(found, output, plot)
    if as_json:
        click.echo(found.to_json(), nl=False)
        return
    _show(found, top)
    for path in (output, plot):
        if path is not None:
            click.echo(f"written to {path}")


def _check_plots() -> None:
    """Before the work, not after it.

    Raises:
        UsageError: what draws the plots is not installed.
    """
    from onnxq.report import plots

    try:
        plots.available()
    except UsageError as error:
        raise UsageError(
            "--plot needs the package vl-convert-python, which draws: install onnxq[report], or leave --plot out"
        ) from error


def _write(found: Sensitivity, output: Path | None, plot: Path | None) -> None:
    from onnxq.ir.files import write_text
    from onnxq.report.sensitivity import write_plot

    if output is not None:
        found.save(output)
    if plot is not None:
        write_text(plot, write_plot(found, plot), "--plot")


def _show(found: Sensitivity, top: int) -> None:
    from onnxq.report import sensitivity, terminal

    terminal.show_sections(sensitivity.sections(found, top))
