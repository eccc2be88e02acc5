"""`onnxq doctor`: what this machine and installation are, and what is slow here."""

from __future__ import annotations

import json

import click

from onnxq.cli import options
from onnxq.cli.main import debug_option


@click.command("doctor")
@options.json_option
@debug_option
def command(*, as_json: bool) -> int:
    """Say what this machine and this installation are, and what is slow or inexact here, and why.

    The exit code is 0 whatever is found.
    """
    from onnxq.report import terminal
    from onnxq.report.section import Section
    from onnxq.workbench.doctor import examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found.plain(), indent=2, ensure_ascii=False))
        return 0
    words = {"good": "ok", "note": "note", "slow": "slow", "broken": "FAIL"}
    said = tuple((words[f.level], f.sentence) for f in found.findings) or (("ok", "Nothing stands out."),)
    tables = [Section(title=name, rows=tuple(facts.items())) for name, facts in found.facts.items() if facts]
    terminal.show_sections([*tables, Section(title="What to know", rows=said)])
    return 0
