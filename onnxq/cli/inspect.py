"""`onnxq inspect`: what is in a model file."""

from __future__ import annotations

from pathlib import Path

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("inspect")
@click.argument("model", type=options.UserPath())
@options.json_option
@debug_option
def command(model: Path, as_json: bool) -> int:
    """Show ops, opset, sizes and inputs of a model.

    Of a quantized model also what is int8, what is float, and why.
    """
    from onnxq import driver
    from onnxq.cli import output

    return output.emit(driver.inspect(model, progress=output.begin(None)), as_json=as_json)
