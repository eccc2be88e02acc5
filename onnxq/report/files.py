"""A result as a file: a page for a browser, or JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from onnxq.errors import OutputError
from onnxq.report import html
from onnxq.report.json import dumps
from onnxq.validate.result import Result

PAGES = (".html", ".htm")
"""Suffixes of pages; all others get JSON."""


def is_page(path: Path) -> bool:
    """Does this name ask for a page?"""
    return path.suffix.lower() in PAGES


def write(result: Result, path: Path) -> None:
    """Write a result, see `write_document`."""
    write_document(dumps(result), path)


def write_document(document: str, path: Path) -> None:
    """Write a result that is in its JSON form, as a page if the suffix says so: all or nothing.

    Raises:
        OutputError: it cannot be written.
        UsageError: it is to be a page, and what draws the plots is not installed.
    """
    text = html.page(json.loads(document)) if is_page(path) else document
    try:
        with tempfile.TemporaryDirectory(prefix=".onnxq-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            made.write_text(text, encoding="utf-8")
            made.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): give another path with --report") from error
