"""`onnxq costs`: files that say what ops cost on a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.costs.table import CostTable
    from onnxq.workbench.costs import Measured

_SHOWN = 30


@click.group("costs", no_args_is_help=False)
def command() -> None:
    """Measure what ops cost on this machine; show and merge what was measured."""


@command.command("measure")
@click.argument("model", required=False, type=options.UserPath())
@click.option("--calib", metavar="DATA", help="Samples as for quantize.  [default: made up from types and shapes]")
@click.option(
    "-o", "--output", type=options.UserPath(), metavar="FILE", help="What to write.  [default: the cache only]"
)
@click.option(
    "--common", is_flag=True, help="Micro-benchmarks of the common ops in typical shapes, instead of a model."
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Of ONNX Runtime."
)
@click.option(
    "--against", type=options.UserPath(), metavar="FILE", help="Whose prediction to print.  [default: shipped]"
)
@click.option("--cache/--no-cache", default=True, help="Keep it for later commands on this machine.  [default: do]")
@options.skip_bad_option
@options.preprocess_options
@debug_option
def measure_command(
    *,
    model: Path | None,
    calib: str | None,
    output: Path | None,
    common: bool,
    threads: int,
    against: Path | None,
    cache: bool,
    skip_bad: bool | None,
    **preprocess: Any,
) -> None:
    """Measure the kernels of a model, in float and in int8, on this machine.

    The model is run as it is, normalised, and with all the int8 that kernels allow, under ONNX Runtime's profiler.
    """
    from onnxq.costs import files
    from onnxq.errors import UsageError
    from onnxq.ir.files import check_writable
    from onnxq.report.progress import make_progress
    from onnxq.workbench import costs

    if common == (model is not None):
        raise UsageError("name what to measure: either a MODEL or --common")
    if output is None and not cache:
        raise UsageError("nothing would be kept: give -o FILE, or leave --no-cache out")
    if output is not None:
        check_writable(output)
    if model is None:
        table = costs.measure_common(threads=threads, progress=make_progress())
    else:
        found = costs.measure_model(
            model,
            calib,
            threads=threads,
            against=against,
            preprocess=options.given(preprocess),
            skip_bad=bool(skip_bad),
            progress=make_progress(),
        )
        _print_forms(found)
        table = found.table
    if cache:
        files.remember(table)
    if output is not None:
        files.save(table, output)
    click.echo(f"{output or files.cache_file()}: {len(table)} kernels measured on {table.machine}")


def _print_forms(found: Measured) -> None:
    for note in found.notes:
        click.echo(note)
    click.echo("form        measured ms  kernels ms  predicted ms  of it known  runs")
    for form in found.forms:
        click.echo(
            f"{form.name:10}  {form.seconds * 1e3:11.3f}  {form.kernels * 1e3:10.3f}  {form.predicted * 1e3:12.3f}  "
            f"{form.known:11.0%}  {form.runs:4}"
        )


@command.command("show")
@click.argument("file", type=options.UserPath())
@click.option("--all", "everything", is_flag=True, help=f"All kernels, not just the {_SHOWN} that take longest.")
@options.json_option
@debug_option
def show_command(*, file: Path, everything: bool, as_json: bool) -> None:
    """Print a cost file: where it was measured, and each kernel's time."""
    from onnxq.costs import files

    table = files.load(file)
    if as_json:
        click.echo(json.dumps(_plain(table), indent=1, ensure_ascii=False))
        return
    click.echo(f"{len(table)} kernels, measured on {table.machine}")
    if foreign := table.foreign():
        click.echo(f"{foreign}.")
    entries = sorted(table.costs.items(), key=lambda e: (-e[1].seconds, str(e[0])))
    click.echo("microseconds   spread  seen  threads  kernel")
    for key, cost in entries if everything else entries[:_SHOWN]:
        click.echo(
            f"{cost.seconds * 1e6:12.2f}  {cost.spread * 1e6:7.2f}  {len(cost.observations):4}  {key.threads:7}  {key}"
        )
    if len(entries) > _SHOWN and not everything:
        click.echo(f"{len(entries) - _SHOWN} more: --all")


def _plain(table: CostTable) -> dict[str, Any]:
    return {
        "machine": {**vars(table.machine), "features": list(table.machine.features)},
        "foreign": table.foreign(),
        "costs": [
            {
                "op": key.op,
                "kernel": str(key),
                "threads": key.threads,
                "seconds": cost.seconds,
                "spread": cost.spread,
                "observations": len(cost.observations),
                "in_context": bool(cost.context),
            }
            for key, cost in sorted(table.costs.items(), key=lambda e: (-e[1].seconds, str(e[0])))
        ],
    }


@command.command("merge")
@click.argument("files", nargs=-1, required=True, type=options.UserPath())
@click.option("-o", "--output", required=True, type=options.UserPath(), metavar="FILE", help="What to write.")
@debug_option
def merge_command(*, files: tuple[Path, ...], output: Path) -> None:
    """Put cost files of one machine together."""
    from onnxq.costs.files import load, save
    from onnxq.ir.files import check_writable

    check_writable(output)
    first, *others = (load(file) for file in files)
    merged = first.merge(*others)
    save(merged, output)
    click.echo(f"{output}: {len(merged)} kernels, measured on {merged.machine}")
