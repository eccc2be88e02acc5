"""`onnxq calibrate`: statistics of a model's tensors, as a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.stats.engine import Outcome
    from onnxq.stats.statistics import Statistics
    from onnxq.stats.summary import Tensor


@click.command("calibrate")
@click.argument("model", required=False, type=options.UserPath())
@click.option("--calib", metavar="DATA", help="Samples: a folder, a file, or module:function.")
@click.option("-o", "--output", type=options.UserPath(), metavar="FILE", help="Where the statistics go (npz).")
@options.plan_options(method="Collect what this method reads.  [default: what all of ours read]")
@click.option("--keep-overridable", is_flag=True, default=None, help="As onnxq quantize will be told.")
@click.option(
    "--checkpoint",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two checkpoints, from which a run that was killed goes on; 0: behind each sample.",
)
@options.means_options
@options.json_option
@debug_option
def command(
    *,
    model: Path | None,
    calib: str | None,
    output: Path | None,
    keep_overridable: bool | None,
    checkpoint: float,
    as_json: bool,
    **planning: Any,
) -> None:
    """Run the samples through the model once and write what its tensors held.

    The file is for onnxq quantize --statistics, onnxq ranges and onnxq statistics; the options are those that onnxq
    quantize will be given.
    """
    from onnxq.report.progress import make_progress
    from onnxq.workbench.calibrate import calibrate

    job = options.planning_job(model, planning, calib=calib, keep_overridable=keep_overridable)
    done = calibrate(job, output, progress=make_progress(), seconds=checkpoint)
    outcome = done.outcome
    if as_json:
        told = {name: getattr(outcome, name) for name in ("ran", "resumed", "cached")}
        rate = {"samples_per_second": outcome.rate, "seconds": done.seconds}
        notes = {"notes": list(done.notes), "output": None if output is None else str(output)}
        click.echo(json.dumps({**as_plain(outcome.statistics), **told, **rate, **notes}, indent=1, ensure_ascii=False))
        return
    for note in done.notes:
        click.echo(note)
    click.echo(f"{how(outcome)}, {done.seconds:.1f} s in all")
    show(outcome.statistics)
    if output is not None:
        click.echo(f"written to {output}")


def how(outcome: Outcome) -> str:
    """Where the statistics came from, in words."""
    samples = outcome.statistics.samples
    if outcome.cached:
        return f"{samples} samples: all of it from the cache"
    resumed = f", {outcome.resumed} from a checkpoint" if outcome.resumed else ""
    return f"{samples} samples: {outcome.ran} run{resumed}, {outcome.rate:.1f} samples per second"


def show(statistics: Statistics) -> None:
    """Print the summary: the widest tensors, and those whose range a few values set."""
    from onnxq.stats.summary import ridden, tensors, widest

    found = tensors(statistics)
    click.echo(f"{len(found)} tensors, model {statistics.model_hash[:12]}")
    if statistics.unreached:
        click.echo(f"never reached by a sample: {', '.join(statistics.unreached)}")
    if found:
        _table("widest, by max - min", widest(found))
    if most := ridden(found):
        _table("most outlier-ridden, by max |x| / the magnitude that 99.9 % of the elements do not exceed", most)


def _table(title: str, rows: list[Tensor]) -> None:
    click.echo(f"{title}:")
    width = max(len(row.name) for row in rows)
    click.echo(f"  {'':{width}}  {'min':>11}  {'max':>11}  {'99.9 %':>9}  {'outliers':>8}")
    for row in rows:
        body = "" if row.body is None else f"{row.body:9.4g}"
        ratio = "" if row.body is None else f"{row.outliers:8.2f}"
        click.echo(f"  {row.name:{width}}  {row.min:11.5g}  {row.max:11.5g}  {body:>9}  {ratio:>8}".rstrip())


def as_plain(statistics: Statistics) -> dict[str, Any]:
    """The summary for JSON. An infinite ratio is null: JSON has no infinity."""
    from onnxq.stats.summary import ridden, tensors, widest

    def plain(rows: list[Tensor]) -> list[dict[str, Any]]:
        out = []
        for row in rows:
            ratio = row.outliers if math.isfinite(row.outliers) else None
            out.append({**vars(row), "outliers": ratio})
        return out

    found = tensors(statistics)
    return {
        "model_hash": statistics.model_hash,
        "samples": statistics.samples,
        "tensors": len(found),
        "unreached": list(statistics.unreached),
        "widest": plain(widest(found)),
        "outlier_ridden": plain(ridden(found)),
    }
