"""`onnxq check`: does a quantized file keep the rules of its target?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="cpu", show_default=True, metavar="NAME", help="Whose rules.")
@options.json_option
@debug_option
def command(*, model: Path, target: str, as_json: bool) -> int:
    """Check the structure of a quantized model against the rules of a target.

    One sentence per broken rule, exit code 1 if there is any.
    """
    from onnxq.ir.load import load
    from onnxq.plan.check import check
    from onnxq.targets.target import load_target

    found = check(load(model), load_target(target))
    if as_json:
        click.echo(json.dumps([vars(v) for v in found], indent=1, ensure_ascii=False))
    else:
        for one in found:
            click.echo(f"{one.rule}: {one.node + ': ' if one.node else ''}{one.sentence}")
        click.echo(f"{len(found)} broken rules" if found else f"no broken rule of {target}")
    return 1 if found else 0
