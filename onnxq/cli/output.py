"""Where a result goes: stdout for people or for machines, and a file, JSON or HTML, if one is asked for."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from onnxq.cli.main import State
from onnxq.errors import OutputError, UsageError
from onnxq.ir.files import check_writable
from onnxq.progress import Progress
from onnxq.report import files, plots, terminal
from onnxq.report import json as machine
from onnxq.report.progress import make_progress
from onnxq.validate.result import Result


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
        if files.is_page(report):
            plots.available()
    return make_progress()


def emit(result: Result, *, as_json: bool, report: Path | None = None) -> int:
    """Print the result, write it to a file, and give the exit code: 1 if there is a verdict and it says no, else 0.

    Raises:
        OutputError: the file cannot be written.
    """
    result = _with_command(result)
    if report is not None:
        files.write(result, report)
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
