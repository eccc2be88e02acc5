"""`onnxq ranges`: statistics as a readable file of ranges, and two such files compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option
from onnxq.errors import UsageError

if TYPE_CHECKING:
    from onnxq.stats.ranges import Bounds

MAKE = "make"
"""The command that is meant when none is named."""


class Ranges(click.Group):
    """`onnxq ranges stats.npz` is `onnxq ranges make stats.npz`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help", "--debug"):
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


@click.group("ranges", cls=Ranges, no_args_is_help=False)
@debug_option
def command() -> None:
    """Make ranges of statistics (onnxq ranges STATS --method M -o FILE), or compare two files of ranges."""


@command.command(MAKE)
@click.argument("statistics", type=options.UserPath())
@click.option("--method", required=True, metavar="NAME", help="Calibration method; auto needs a model and has no say.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method; repeatable.")
@click.option("--target", default="cpu", show_default=True, metavar="NAME", help="Whose type of activations.")
@click.option("-o", "--output", type=options.UserPath(), metavar="FILE", help="[default: print]")
@debug_option
def make_command(*, statistics: Path, method: str, settings: tuple[str, ...], target: str, output: Path | None) -> None:
    """Write the range of each tensor as readable JSON, which may be edited."""
    from onnxq.workbench.calibrate import ranges

    table, notes = ranges(statistics, method, dict(map(_setting, settings)), target)
    for note in notes:
        click.echo(note, err=True)
    if output is None:
        click.echo(table.to_json(), nl=False)
        return
    table.save(output)
    click.echo(f"{output}: ranges of {len(table.ranges)} tensors by {method}")


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    from onnxq.reading.scalars import Odd, scalar

    key, sign, value = text.partition("=")
    node = yaml.compose(value, Loader=yaml.SafeLoader) if value else None
    plain = scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if not sign or not key or plain is None or isinstance(plain, Odd):
        raise UsageError(f'"{text}" is no setting: write --set key=value, like --set percentile=99.9')
    return key, plain


@command.command("diff")
@click.argument("one", type=options.UserPath())
@click.argument("other", type=options.UserPath())
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="X",
    help="Relative differences up to this do not count.",
)
@options.json_option
@debug_option
def diff_command(*, one: Path, other: Path, tolerance: float, as_json: bool) -> int:
    """Show the tensors whose ranges differ, largest relative difference first.

    Relative: the larger shift of an end over the width of the wider range. Exit code 1 if any differ, like diff.
    """
    from onnxq.stats.ranges import RangeTable, differences

    a, b = RangeTable.load(one), RangeTable.load(other)
    found = [d for d in differences(a.ranges, b.ranges) if d.relative > tolerance]
    if as_json:
        rows = [
            {
                "tensor": d.tensor,
                "one": None if d.one is None else vars(d.one),
                "other": None if d.other is None else vars(d.other),
                "relative": d.relative if math.isfinite(d.relative) else None,
            }
            for d in found
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return 1 if found else 0
    if a.model_hash != b.model_hash:
        click.echo(f"the two belong to different models ({a.model_hash[:12]} and {b.model_hash[:12]})")
    width = max((len(d.tensor) for d in found), default=0)
    for d in found:
        share = f"{100 * d.relative:.2f} %" if math.isfinite(d.relative) else "all"
        click.echo(f"{d.tensor:{width}}  {share:>9}  {_shown(d.one)}  ->  {_shown(d.other)}")
    total = len({*a.ranges, *b.ranges})
    click.echo(f"{len(found)} of {total} ranges differ" if found else f"no range of {total} differs")
    return 1 if found else 0


def _shown(bounds: Bounds | None) -> str:
    return "none" if bounds is None else f"[{bounds.min:.6g}, {bounds.max:.6g}]"
