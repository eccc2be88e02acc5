"""Mutation testing of the passes: `make mutation` runs all mutants, `make test-slow` what changed and a sample.

    python tests/mutation/mutate.py                     # every file that record.yaml names, every mutant
    python tests/mutation/mutate.py --sample 300        # files that changed since then; 300 mutants of the others
    python tests/mutation/mutate.py cancel_dq_q.py      # this file
    python tests/mutation/mutate.py --last              # those that survived last time without being listed

A mutant that survives must stand in survivors.yaml with a reason; one that stands there must survive. docs/mutation.md
tells the rest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PASSES = ROOT / "passes" / "onnxq_passes"
TESTS = ROOT / "tests" / "passes"
LAST = ROOT / "out" / "mutation.json"
WHOLE = {"test_fuse_whole.py", "test_random_graphs.py", "test_random_qdq.py", "test_qdq_oracle.py", "test_catalogue.py"}
"""Tests of whole pipelines: they take too long for each mutant, and a pass must be pinned by its own tests."""

Key = tuple[str, str, str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 if every survivor is listed and every listed mutant survives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="source files of the passes (default: those in record.yaml)")
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants of the files that did not change")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--last", action="store_true", help="only what survived last time and is not listed")
    parser.add_argument("--record", action="store_true", help="write the figures of complete files to record.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)

    import pytest
    from loop import Loop
    from mutants import Mutant, mutants_of

    start = time.monotonic()
    listed = read_survivors(HERE / "survivors.yaml")
    record = yaml.safe_load((HERE / "record.yaml").read_text(encoding="utf-8"))
    names = options.files or sorted(record)
    last = [tuple(k) for k in json.loads(LAST.read_text(encoding="utf-8"))] if options.last else []
    if options.last:
        names = sorted({k[0] for k in last})
    changed = [n for n in names if record.get(n, {}).get("source") != fingerprint(PASSES / n)]
    pool = {n: mutants_of(PASSES / n) for n in names}
    chosen: list[Mutant] = [m for n in names for m in pool[n]]
    if options.last:
        chosen = [m for m in chosen if m.key in last]
    elif options.sample is not None:
        rest = [m for n in names if n not in changed for m in pool[n]]
        drawn = {m.key for m in random.Random(options.seed).sample(rest, min(options.sample, len(rest)))}
        chosen = [m for m in chosen if m.file in changed or m.key in drawn]
        print(f"{len(drawn)} of {len(rest)} mutants of files as recorded (seed {options.seed}), and all of: {changed}")

    def progress(done: int, alive: int) -> None:
        if done % 100 == 0:
            print(f"{done} of {len(chosen)} mutants, {alive} survived, {time.monotonic() - start:.0f} s", flush=True)

    loop = Loop(
        package="onnxq_passes", folder=PASSES, mutants=chosen, tests=judges, jobs=options.jobs, progress=progress
    )
    shared = any(judges(n) is None for n in names)
    wanted = sorted(p.name for p in TESTS.glob("test_*.py") if p.name not in WHOLE)
    files = [n for n in wanted if shared or any(n in (judges(f) or ()) for f in names)]
    flags = ["-q", "-s", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    os.chdir(ROOT)
    code = pytest.main([*flags, "-c", str(ROOT / "pyproject.toml"), *(str(TESTS / n) for n in files)], plugins=[loop])
    if code != 0:
        return int(code)

    alive = {m.key for m in loop.survivors}
    new, stale = compare({m.key for m in chosen}, alive, listed, complete=not options.last and options.sample is None)
    print(
        table(
            Counter(m.file for m in chosen), Counter(k[0] for k in alive), Counter(k[0] for k in alive & listed.keys())
        )
    )
    print(f"{time.monotonic() - start:.0f} s; the tests alone, once: {loop.baseline:.0f} s of processor time")
    LAST.parent.mkdir(exist_ok=True)
    LAST.write_text(json.dumps([m.key for m in loop.survivors if m.key in new]), encoding="utf-8")
    if new:
        print(f"\n{len(new)} mutants survive and are not in survivors.yaml:")
        print("\n".join(entry(m.key) + f"    # {m.file}:{m.lines[0]}" for m in loop.survivors if m.key in new))
    if stale:
        print(f"\n{len(stale)} mutants are in survivors.yaml and don't survive any more, or don't exist; drop them:")
        print("\n".join(entry(k) for k in sorted(stale)))
    if options.record and options.sample is None and not options.last and not new and not stale:
        for name in names:
            survived = sum(k[0] == name for k in alive)
            record[name] = {
                "mutants": len(pool[name]),
                "killed": len(pool[name]) - survived,
                "justified": survived,
                "source": fingerprint(PASSES / name),
            }
        write_record(HERE / "record.yaml", record)
    return 1 if new or stale else 0


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


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
