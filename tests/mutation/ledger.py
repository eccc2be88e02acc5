"""The book-keeping of mutation testing: the list of survivors, the recorded figures, and what is compared with what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PASSES = ROOT / "passes" / "onnxq_passes"

Key = tuple[str, str, str, int]
"""File, function, change, occurrence: what names a mutant, whatever lines come before it."""


def judges(source: str) -> frozenset[str] | None:
    """The test file that judges a source file; `None` for modules that passes share: any test that reaches the line."""
    return None if source.startswith("_") else frozenset({f"test_{source}"})


def compare(run: set[Key], alive: set[Key], listed: Mapping[Key, str], *, complete: bool) -> tuple[set[Key], set[Key]]:
    """Survivors that are not listed, and listed ones that did not survive.

    Args:
        run: the mutants that were run.
        alive: those of them that survived.
        listed: the list with its reasons.
        complete: whether every mutant of the files in `run` was run; then a listed one that doesn't exist is told.
    """
    files = {k[0] for k in run}
    stale = {k for k in listed if (k in run and k not in alive) or (complete and k[0] in files and k not in run)}
    return alive - listed.keys(), stale


def read_survivors(path: Path) -> dict[Key, str]:
    """The list: what names each mutant -> the reason why it may survive.

    Raises:
        ValueError: an entry has no reason, or stands there twice.
    """
    listed: dict[Key, str] = {}
    for row in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
        key = (row["file"], row["function"], row["change"].rstrip("\n"), row.get("occurrence", 1))
        if not (row.get("reason") or "").strip():
            raise ValueError(f"{path.name}: the entry {key} has no reason")
        if key in listed:
            raise ValueError(f"{path.name}: the entry {key} stands there twice")
        listed[key] = row["reason"]
    return listed


def entry(key: Key) -> str:
    """An entry of survivors.yaml, without its reason."""
    lines = [f"- file: {key[0]}", f"  function: {key[1]}", "  change: |-", *(f"    {c}" for c in key[2].splitlines())]
    return "\n".join([*lines, *([f"  occurrence: {key[3]}"] if key[3] > 1 else []), "  reason:"])


def fingerprint(path: Path) -> str:
    """Of the text of a source file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """One line a file."""
    head = "# Written by `make mutation`: the files that are covered, and the figures of the last full run.\n"
    rows = [f"{n}: {{{', '.join(f'{k}: {v}' for k, v in row.items())}}}\n" for n, row in sorted(record.items())]
    path.write_text(head + "".join(rows), encoding="utf-8")


def table(total: Mapping[str, int], survived: Mapping[str, int], justified: Mapping[str, int]) -> str:
    """Figures per file."""
    rows = [
        (n, total[n], total[n] - survived.get(n, 0), survived.get(n, 0), justified.get(n, 0)) for n in sorted(total)
    ]
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, 5))))  # type: ignore[arg-type]
    head = ("file", "mutants", "killed", "survived", "justified")
    return "\n".join(f"{r[0]:36}" + "".join(f"{c:>10}" for c in r[1:]) for r in [head, *rows])
