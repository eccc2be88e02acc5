"""Where a result goes: stdout for people or for machines, and a file, JSON or HTML, if one is asked for."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from onnxq.cli.main import State
from onnxq.errors import OutputError, UsageError
from onnxq.ir.files import check_writable
from onnxq.progress import Progress
from onnxq.report import html, plots, terminal
from onnxq.report import json as machine
from onnxq.report.progress import make_progress
from onnxq.validate.result import Result

PAGES = (".html", ".htm")
"""Suffixes of reports for a browser; all others get JSON."""


def begin(report: Path | None, *models: Path | None) -> Progress:
    """Progress on stderr.

    Raises:
        OutputError: the report file could not be written; said before the work, not after it.
        UsageError: it would replace one of the models; it is a page, and what draws the plots is not installed.
    """
    if report is not None:
        if report.resolve() in {model.resolve() for model in models if model is not None}:
            raise UsageError(f"the report {report} would replace a model: give another path with --report")
        check_writable(report)
        if report.suffix.lower() in PAGES:
            plots.available()
    return make_progress()


def emit(result: Result, *, as_json: bool, report: Path | None = None) -> int:
    """Print the result, write it to a file, and give the exit code: 1 if there is a verdict and it says no, else 0.

    Raises:
        OutputError: the file cannot be written.
    """
    result = _with_command(result)
    if report is not None:
        write_report(report, machine.dumps(result))
    try:
        if as_json:
            sys.stdout.write(machine.dumps(result))
            sys.stdout.flush()
        else:
            terminal.show(result)
    except BrokenPipeError:  # the reader, like head, has enough; the exit code is still the answer
        _silence()
    except OSError as error:
        _silence()
        raise OutputError(f"the report cannot be printed ({error.strerror}): send it elsewhere") from error
    return 0 if result.verdict is None else result.verdict.exit_code


def _silence() -> None:
    """Let what is still in the buffer of stdout go nowhere, so that Python's exit does not fail on it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _with_command(result: Result) -> Result:
    """What was typed goes into the part of the report that says how to run it again."""
    context = click.get_current_context(silent=True)
    state = context.find_object(State) if context is not None else None
    if result.run is None or state is None:
        return result
    return replace(result, run=replace(result.run, command=state.arguments))


def write_report(path: Path, document: str) -> None:
    """A result in its JSON form as a file, a page if the suffix says so. All or nothing: a temporary file, a rename.

    Raises:
        OutputError: it cannot be written.
        UsageError: it is to be a page, and what draws the plots is not installed.
    """
    text = html.page(json.loads(document)) if path.suffix.lower() in PAGES else document
    try:
        with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            made.write_text(text, encoding="utf-8")
            made.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): give another path with --report") from error
