"""`onnxq report`: the page of a saved result, made again without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("report")
@click.argument("result", type=options.UserPath())
@click.option(
    "-o", "--output", type=options.UserPath(), metavar="FILE", help="[default: RESULT with .html for its suffix]"
)
@debug_option
def command(*, result: Path, output: Path | None) -> int:
    """Make the HTML page of a result that --report or --json wrote.

    Nothing is measured or run: the models and the samples need not be there.
    """
    from onnxq.cli import output as printed
    from onnxq.errors import UsageError
    from onnxq.report import files, html

    page = output or result.with_suffix(".html")
    if not files.is_page(page):
        raise UsageError(f"{page} does not end in .html: onnxq report makes pages, give such a name with -o")
    document = html.read(result)
    printed.begin(page, result)
    files.write_document(json.dumps(document), page)
    click.echo(f"wrote {page}")
    return 0
