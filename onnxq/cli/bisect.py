"""`onnxq bisect`: the pass that hurts, then the node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.workbench.bisect import Bisection


@click.command("bisect")
@click.argument("pipeline")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="Samples to measure on.")
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Of them.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=32, show_default=True, metavar="N", help="Nodes to try at most."
)
@options.pipeline_options
@debug_option
def command(*, pipeline: str, model: Path, data: str, samples: int, limit: int, **given: Any) -> None:
    """Name the pass that hurts accuracy most, then the node.

    Calibrates with the same samples if --calib names no others.
    """
    from onnxq.report.progress import make_progress
    from onnxq.workbench.bisect import bisect

    request = options.pipeline_request(pipeline, model, given)
    _print(bisect(request, data, samples=samples, limit=limit, progress=make_progress()))


def _print(found: Bisection) -> None:
    width = max((len(p.name) for p in found.passes), default=0)
    for effect in found.passes:
        click.echo(f"{effect.name:{width}}  {_decibels(effect.sqnr_db)}")
    if found.worst is None:
        click.echo("no pass of this pipeline changes the outputs on these samples")
        return
    click.echo(f"most harm: {found.worst.name}")
    for node in found.nodes:
        gain = "its result is the first that moves" if node is found.nodes[0] else "moves, too"
        if node.gain_db is not None:
            gain = f"{_decibels(node.sqnr_db)} with it in float, {node.gain_db:+.1f} dB"
        else:
            gain = f"{gain}, {_decibels(node.sqnr_db)}"
        click.echo(f"  {node.op} {node.name}: {gain}")
    if found.left_out:
        click.echo(f"  {found.left_out} more nodes were not tried: give a higher --limit")


def _decibels(value: float) -> str:
    return "no difference" if value == float("inf") else f"{value:.1f} dB"
