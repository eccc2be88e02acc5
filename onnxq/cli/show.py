"""`onnxq show`: a pipeline with everything written out."""

from __future__ import annotations

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("show")
@click.argument("pipeline", shell_complete=options.complete("onnxq.pipelines"))
@debug_option
def command(pipeline: str) -> None:
    """Print a pipeline with every default and every include written out.

    What is printed is a pipeline file that does the same.
    """
    from onnxq.pipeline.spec import load_pipeline
    from onnxq.pipeline.write import to_yaml

    click.echo(to_yaml(load_pipeline(pipeline)), nl=False)
