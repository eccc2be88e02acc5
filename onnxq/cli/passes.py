"""`onnxq passes`: which passes are installed, from which package, with which settings."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from onnxq import registry
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.pipeline.base import Pass


@click.command("passes")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def command(name: str | None, as_json: bool) -> None:
    """List the registered passes, or describe one with its settings."""
    described = [
        _describe(one, registry.load(registry.PASSES, one))
        for one in ([name] if name else registry.names(registry.PASSES))
    ]
    if as_json:
        click.echo(json.dumps(described[0] if name else described, indent=1))
    elif name:
        _print_one(described[0])
    else:
        width = max((len(one["name"]) for one in described), default=0)
        for one in described:
            line = f"{one['summary']}  ({one['package']})"
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else max(len(line), 1) + width + 3
            for i, part in enumerate(textwrap.wrap(line, max(columns - width - 3, 30)) or [""]):
                click.echo(f"{one['name'] if i == 0 else '':{width}}  {part}")


def _describe(name: str, body: type[Pass]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": body.summary(),
        "package": registry.distribution(registry.PASSES, name),
        "takes": body.takes.value,
        "gives": body.gives.value,
        "needs": sorted(body.needs),
        "settings": [_setting(field) for field in dataclasses.fields(body)],  # type: ignore[arg-type]
    }


def _setting(field: dataclasses.Field[Any]) -> dict[str, str]:
    if field.default is not dataclasses.MISSING:
        default = repr(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        default = repr(field.default_factory())
    else:
        default = "required"
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return {"name": field.name, "type": kind, "default": default}


def _print_one(one: dict[str, Any]) -> None:
    click.echo(f"{one['name']}: {one['summary']}")
    click.echo(f"from {one['package']}; takes {one['takes']}, gives {one['gives']}" + _needs(one["needs"]))
    if not one["settings"]:
        click.echo("no settings")
    for setting in one["settings"]:
        click.echo(f"  {setting['name']}: {setting['type']} = {setting['default']}")


def _needs(needs: list[str]) -> str:
    return f"; needs {', '.join(needs)}" if needs else ""
