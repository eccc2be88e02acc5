"""`onnxq statistics`: files of statistics, merged or shown."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxq.cli import options
from onnxq.cli.calibrate import as_plain, show
from onnxq.cli.main import debug_option


@click.group("statistics", no_args_is_help=False)
def command() -> None:
    """Merge or show what onnxq calibrate wrote."""


@command.command("merge")
@click.argument("files", nargs=-1, required=True, type=options.UserPath())
@click.option("-o", "--output", required=True, type=options.UserPath(), metavar="FILE", help="What to write.")
@debug_option
def merge_command(*, files: tuple[Path, ...], output: Path) -> None:
    """Make of statistics of one model those of all samples together.

    Which samples a file saw is not in it: one sample in two files counts twice.
    """
    from onnxq.workbench.calibrate import merge

    merged = merge(files, output)
    click.echo(f"{output}: {merged.samples} samples, {len(merged.tensors)} tensors")


@command.command("show")
@click.argument("file", type=options.UserPath())
@options.json_option
@debug_option
def show_command(*, file: Path, as_json: bool) -> None:
    """Print what stands out in a file of statistics."""
    from onnxq.stats.statistics import Statistics

    found = Statistics.load(file)
    if as_json:
        click.echo(json.dumps(as_plain(found), indent=1, ensure_ascii=False))
        return
    click.echo(f"{found.samples} samples")
    show(found)
