"""`onnxq explain`: what is int8, what is float, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("explain")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--pipeline", default="cpu", show_default=True, metavar="NAME", help="How a float model is quantized.")
@options.pipeline_options
@options.json_option
@debug_option
def command(*, model: Path, pipeline: str, as_json: bool, **given: Any) -> None:
    """Say of every operator whether it is int8 or float, and why.

    Of a quantized model, and of a float one with --calib, also every Q and DQ, and where it could not move or fuse.
    """
    from onnxq.report.progress import make_progress
    from onnxq.workbench.explain import explain, lines

    found = explain(options.pipeline_request(pipeline, model, given), progress=make_progress())
    if as_json:
        click.echo(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        for line in lines(found):
            click.echo(line)
