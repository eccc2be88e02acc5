"""Mutation testing of the passes: `make mutation` runs all mutants, `make test-slow` what changed and a sample.

    python tests/mutation/mutate.py                     # every file that record.yaml names, every mutant
    python tests/mutation/mutate.py --sample 300        # files that changed since then; 300 mutants of the others
    python tests/mutation/mutate.py cancel_dq_q.py      # this file
    python tests/mutation/mutate.py --last              # only what survived last time without being listed
    python tests/mutation/mutate.py --judge             # nothing is run: the last complete runs against the list

A mutant that survives must stand in survivors.yaml with a reason; one that stands there must survive. docs/mutation.md
tells the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pytest
import yaml
from ledger import HERE, PASSES, ROOT, Key, compare, entry, fingerprint, judges, read_survivors, table, write_record
from loop import Loop
from mutants import Mutant, mutants_of

TESTS = ROOT / "tests" / "passes"
LAST = ROOT / "out" / "mutants.json"
WHOLE = {"test_fuse_whole.py", "test_import.py", "test_random_graphs.py", "test_qdq_oracle.py", "test_catalogue.py"}
"""Tests of whole pipelines: they take too long for each mutant, and a pass must be pinned by its own tests."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 if every survivor is listed and every listed mutant survives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="source files of the passes (default: those in record.yaml)")
    parser.add_argument("--sample", type=int, metavar="N", help="N mutants of the files that did not change")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--last", action="store_true", help="only what survived the last run of the file unlisted")
    parser.add_argument("--judge", action="store_true", help="run nothing: compare the last complete run with the list")
    parser.add_argument("--record", action="store_true", help="write the figures of complete files to record.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    listed = read_survivors(HERE / "survivors.yaml")
    record = yaml.safe_load((HERE / "record.yaml").read_text(encoding="utf-8"))
    last = read_last()
    names = options.files or sorted(record)

    pool = {n: mutants_of(PASSES / n) for n in names}
    run = [m for n in names for m in pool[n]]
    complete = not options.last and options.sample is None
    if options.judge:
        old = [n for n in names if last.get(n, {}).get("source") != fingerprint(PASSES / n)]
        if old:
            sys.exit(f"no complete run of these files as they are: {', '.join(old)}")
        survived = {tuple(k) for n in names for k in last[n]["survived"]}
    else:
        if options.last:
            old = [n for n in names if n in last and last[n]["source"] == fingerprint(PASSES / n)]
            survived = {tuple(k) for n in old for k in last[n]["survived"]}
            run = [m for m in run if m.key in survived and m.key not in listed]
        elif options.sample is not None:
            run = sample(pool, record, options.sample, options.seed)
        survived = execute(run, options.jobs)
    alive = {m.key for m in run if m.key in survived}
    new, stale = compare({m.key for m in run}, alive, listed, complete=complete)
    total, lived, known = (Counter(k[0] for k in keys) for keys in ([m.key for m in run], alive, alive & listed.keys()))
    print(table(total, lived, known))
    if not options.judge and options.sample is None:
        remember({m.key for m in run} if options.last else None, names, alive)
    if new:
        print(f"\n{len(new)} mutants survive and are not in survivors.yaml:")
        print("\n".join(entry(m.key) + f"    # {m.file}:{m.lines[0]}" for m in run if m.key in new))
    if stale:
        print(f"\n{len(stale)} mutants are in survivors.yaml and don't survive any more, or don't exist; drop them:")
        print("\n".join(entry(k) for k in sorted(stale)))
    if options.record and complete and not new and not stale:
        for n in names:
            row = {"mutants": total[n], "killed": total[n] - lived[n], "justified": lived[n]}
            record[n] = {**row, "run": read_last()[n]["run"], "source": fingerprint(PASSES / n)}
        write_record(HERE / "record.yaml", record)
    return 1 if new or stale else 0


def read_last() -> dict[str, Any]:
    """What survived the last complete run of each file, and of which source that was."""
    return dict(json.loads(LAST.read_text(encoding="utf-8"))) if LAST.is_file() else {}


def remember(run: set[Key] | None, names: Sequence[str], alive: set[Key]) -> None:
    """Keep what survived.

    Args:
        run: the mutants that were run anew, of those that survived the last time; None: all of these files.
        names: the files.
        alive: what survived.
    """
    last = read_last()
    for n in names:
        if run is None:
            survived = sorted(k for k in alive if k[0] == n)
            last[n] = {"source": fingerprint(PASSES / n), "run": date.today().isoformat(), "survived": survived}
        elif n in last:
            last[n]["survived"] = [k for k in last[n]["survived"] if tuple(k) not in run or tuple(k) in alive]
    LAST.parent.mkdir(exist_ok=True)
    LAST.write_text(json.dumps(last), encoding="utf-8")


def sample(pool: Mapping[str, list[Mutant]], record: Mapping[str, Any], size: int, seed: int) -> list[Mutant]:
    """Every mutant of the files that are not as they were recorded, and some of the others."""
    changed = [n for n in pool if record.get(n, {}).get("source") != fingerprint(PASSES / n)]
    rest = [m for n in pool if n not in changed for m in pool[n]]
    drawn = {m.key for m in random.Random(seed).sample(rest, min(size, len(rest)))}
    print(f"{len(drawn)} of {len(rest)} mutants (seed {seed}); all of changed files: {', '.join(changed) or 'none'}")
    return [m for n in pool for m in pool[n] if n in changed or m.key in drawn]


def execute(run: Sequence[Mutant], jobs: int) -> set[Key]:
    """Which of the mutants survive.

    Raises:
        SystemExit: the tests fail without any mutant.
    """
    if not run:
        return set()
    start = time.monotonic()

    def progress(done: int, alive: int) -> None:
        if done % 100 == 0:
            print(f"{done} of {len(run)} mutants, {alive} survived, {time.monotonic() - start:.0f} s", flush=True)

    every = frozenset(p.name for p in TESTS.glob("test_*.py")) - WHOLE

    def judging(source: str) -> frozenset[str]:
        return judges(source) or every

    loop = Loop(package="onnxq_passes", folder=PASSES, mutants=run, tests=judging, jobs=jobs, progress=progress)
    wanted = frozenset[str]().union(*(judging(n) for n in {m.file for m in run}))
    files = sorted(str(TESTS / n) for n in wanted)
    flags = ["-q", "-s", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    os.chdir(ROOT)
    code = pytest.main([*flags, "-c", str(ROOT / "pyproject.toml"), *files], plugins=[loop])
    if code != 0:
        sys.exit(int(code))
    print(f"{time.monotonic() - start:.0f} s; the tests alone, once: {loop.baseline:.0f} s of processor time")
    return {m.key for m in loop.survivors}


if __name__ == "__main__":
    sys.exit(main())
