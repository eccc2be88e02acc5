"""`onnxq passes`: which passes are installed, from which package; of one its rule, its settings and its example."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from onnxq import registry
from onnxq.cli import options
from onnxq.cli.main import debug_option

if TYPE_CHECKING:
    from onnxq.pipeline.base import Pass


@click.command("passes")
@click.argument("name", required=False, shell_complete=options.complete(registry.PASSES))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def command(name: str | None, as_json: bool) -> None:
    """List the registered passes, or describe one: its rule, its settings, and a graph before and after it."""
    if name:
        one = _describe(name, registry.load(registry.PASSES, name))
        one |= _example(name)
        if as_json:
            click.echo(json.dumps(one, indent=1))
        else:
            _print_one(one)
        return
    described = [_describe(one, registry.load(registry.PASSES, one)) for one in registry.names(registry.PASSES)]
    if as_json:
        click.echo(json.dumps(described, indent=1))
    else:
        width = max((len(one["name"]) for one in described), default=0)
        for one in described:
            line = f"{one['summary']}  ({one['package']})"
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else max(len(line), 1) + width + 3
            for i, part in enumerate(textwrap.wrap(line, max(columns - width - 3, 30)) or [""]):
                click.echo(f"{one['name'] if i == 0 else '':{width}}  {part}")


_ATTRIBUTES = "\n\nAttributes:\n"
"""What stands in a class docstring between the rule and the settings."""


def _describe(name: str, body: type[Pass]) -> dict[str, Any]:
    rule, _, attributes = inspect.cleandoc(body.__doc__ or "").partition(_ATTRIBUTES)
    abouts = _abouts(attributes)
    return {
        "name": name,
        "summary": body.summary(),
        "rule": rule.partition("\n\n")[2].strip(),
        "package": registry.distribution(registry.PASSES, name),
        "takes": body.takes.value,
        "gives": body.gives.value,
        "needs": sorted(body.needs),
        "settings": [_setting(field, abouts) for field in dataclasses.fields(body)],  # type: ignore[arg-type]
    }


def _example(name: str) -> dict[str, Any]:
    from onnxq.workbench.example import example

    made = example(name)
    return {} if made is None else {"example": {"before": made.before, "after": made.after}}


def _abouts(attributes: str) -> dict[str, str]:
    """`    name, other: what they are` with lines further in below it -> {name: ..., other: ...}."""
    found = re.findall(r"^ {4}([\w, ]+): (.*(?:\n {5,}.*)*)", attributes.partition("\n\n")[0], flags=re.MULTILINE)
    return {name: " ".join(about.split()) for names, about in found for name in names.split(", ")}


def _setting(field: dataclasses.Field[Any], abouts: dict[str, str]) -> dict[str, str]:
    if field.default is not dataclasses.MISSING:
        default = repr(field.default)
    elif field.default_factory is not dataclasses.MISSING:
        default = repr(field.default_factory())
    else:
        default = "required"
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return {"name": field.name, "type": kind, "default": default, "about": abouts.get(field.name, "")}


def _print_one(one: dict[str, Any]) -> None:
    click.echo(f"{one['name']}: {one['summary']}")
    click.echo(f"from {one['package']}; takes {one['takes']}, gives {one['gives']}" + _needs(one["needs"]))
    if not one["settings"]:
        click.echo("no settings")
    for setting in one["settings"]:
        about = setting["about"] and f"  # {setting['about']}"
        click.echo(f"  {setting['name']}: {setting['type']} = {setting['default']}{about}")
    if one["rule"]:
        click.echo(f"\n{one['rule']}")
    for title, graph in one.get("example", {}).items():
        click.echo(f"\n{title}: {graph.rstrip()}")


def _needs(needs: list[str]) -> str:
    return f"; needs {', '.join(needs)}" if needs else ""
