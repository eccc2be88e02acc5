"""Files and workflow commands that only the gate writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from onnxq.errors import OutputError, UsageError
from onnxq.ir.files import check_writable
from onnxq.report import gate
from onnxq.validate.result import Result


def begin(files: Iterable[Path | None], models: Iterable[Path]) -> None:
    """Look at the files before the work.

    Raises:
        OutputError: one could not be written.
        UsageError: one would replace a model.
    """
    taken = {model.resolve() for model in models}
    for file in files:
        if file is None:
            continue
        if file.resolve() in taken:
            raise UsageError(f"{file} is a model, which would be replaced: give another path")
        check_writable(file)


def write(result: Result, *, junit: Path | None, summary: Path | None) -> None:
    """JUnit XML; the summary, which is added to what the file holds, as GitHub wants it; and, inside a GitHub workflow,
    annotations on stderr, where they do not mix with --json.

    Raises:
        OutputError: a file cannot be written.
    """
    if junit is not None:
        _write(junit, gate.junit(result), mode="w")
    if summary is not None:
        _write(summary, gate.markdown(result), mode="a")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in gate.workflow_commands(result):
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _write(path: Path, text: str, *, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): give another path") from error
