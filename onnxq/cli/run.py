"""`onnxq run`: any pipeline on a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.workbench.run import Ran


@click.command("run")
@click.argument("pipeline")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What to write.")
@options.pipeline_options
@click.option(
    "--print-after", multiple=True, metavar="PASS", help="Print the graph as text behind this pass; repeatable."
)
@click.option("--print-changed", is_flag=True, help="Print what each pass changed, as a diff.")
@click.option(
    "--verify-each",
    is_flag=True,
    help="Behind every pass: onnx.checker, the rules of its stage, and the outputs in ONNX Runtime.",
)
@click.option("--timing", is_flag=True, help="Print the seconds of each pass and of each stage around.")
@debug_option
def command(
    *,
    pipeline: str,
    model: Path,
    output: Path,
    print_after: tuple[str, ...],
    print_changed: bool,
    verify_each: bool,
    timing: bool,
    **given: Any,
) -> int:
    """Run a pipeline, by name or file, on a model.

    Nothing is compared with the float model at the end: onnxq validate does that.
    """
    from onnxq.pipeline.hooks import counted
    from onnxq.report.progress import make_progress
    from onnxq.workbench.run import Show, run

    request = options.pipeline_request(pipeline, model, given)
    show = Show(after=print_after, changed=print_changed, verify=verify_each)
    ran = run(request, output, show, click.echo, progress=make_progress())
    for note in ran.notes:
        click.echo(note)
    if timing:
        _print_times(ran)
    passes, rewrites = len(ran.run.steps), sum(s.report.rewrites for s in ran.run.steps)
    verified = ", each verified" if verify_each else ""
    click.echo(f"{output}: {counted(passes, 'pass')}{verified}, {counted(rewrites, 'rewrite')}")
    return 0


def _print_times(ran: Ran) -> None:
    width = max((len(s.name) for s in ran.run.steps), default=4)
    click.echo(f"{'pass':{width}}  seconds  rewrites   nodes")
    for step in ran.run.steps:
        click.echo(f"{step.name:{width}}  {step.seconds:7.3f}  {step.report.rewrites:8}  {step.nodes:6}")
    click.echo("seconds: " + ", ".join(f"{stage} {value:.3f}" for stage, value in ran.seconds.items()))
