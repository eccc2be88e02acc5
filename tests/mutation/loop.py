"""A pytest plugin: instead of running the tests, it runs them against mutants, each in a fork of this process.

Tests are collected and modules imported once. A first fork runs every test unchanged and says which lines it reaches
and how long it takes. After that each mutant is a fork that exchanges the code of one function and runs the tests that
reach the changed statement, until one fails: first those that killed other mutants of the function, then the shortest.
Nothing is written to the files under test.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol
from mutants import Mutant, install

KILLED, SURVIVED, LOST = 0, 1, 2
_WORD = 4
"""Bytes in which a fork tells, in memory that all share, which test failed."""
SLACK = 10.0
"""A mutant may need this many times the processor time of its tests, plus as many seconds; then it counts as killed."""


@dataclass(kw_only=True)
class Loop:
    """The plugin.

    Attributes:
        package, folder: the package that holds the modules under test.
        mutants: what to run.
        tests: names of the test files that may judge a source file.
        jobs: forks at a time.
        progress: told after each start how many were started and how many survived so far.
        survivors: filled by the run, in the order of `mutants`.
        baseline: how long the unmutated tests took, in seconds of processor time.
    """

    package: str
    folder: Path
    mutants: Sequence[Mutant]
    tests: Callable[[str], frozenset[str]]
    jobs: int = 1
    progress: Callable[[int, int], None] = lambda done, alive: None
    survivors: list[Mutant] = field(default_factory=list)
    baseline: float = 0.0
    _kills: defaultdict[tuple[str, str], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    _killer: mmap.mmap = field(init=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Replace pytest's own loop."""
        if session.testsfailed:
            raise pytest.UsageError("the tests can't be collected")
        reach, seconds = self._measure(session.items)
        self.baseline = sum(seconds)
        alive: set[int] = set()
        running: dict[int, int] = {}
        self._killer = mmap.mmap(-1, _WORD * len(self.mutants) + _WORD)
        for index, mutant in enumerate(self.mutants):
            if len(running) >= self.jobs:
                self._wait(running, alive)
            files = self.tests(mutant.file)
            first, last = mutant.lines
            items = [
                i
                for i, item in enumerate(session.items)
                if item.path.name in files and any(first <= line <= last for line in reach[i].get(mutant.file, ()))
            ]
            known = self._kills[mutant.file, mutant.function]
            items.sort(key=lambda i: (-known[i], seconds[i]))
            if items:
                running[self._fork(index, session.items, items, sum(seconds[i] for i in items))] = index
            else:
                alive.add(index)
            self.progress(index + 1, len(alive))
        while running:
            self._wait(running, alive)
        self.survivors.extend(self.mutants[i] for i in sorted(alive))
        return True

    def _measure(self, items: Sequence[pytest.Item]) -> tuple[list[dict[str, set[int]]], list[float]]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _silence()
            watch = coverage.Coverage(data_file=None, config_file=False, include=[f"{self.folder}/*"])
            result: list[Any] = []
            watch.start()
            for index, item in enumerate(items):
                watch.switch_context(str(index))
                start = time.process_time()
                reports = runtestprotocol(item, log=False, nextitem=None)
                bad = [r.longreprtext for r in reports if r.failed]
                result.append([{}, time.process_time() - start, bad])
            watch.stop()
            data = watch.get_data()
            for file in data.measured_files():
                for line, contexts in data.contexts_by_lineno(file).items():
                    for index in filter(None, contexts):
                        result[int(index)][0].setdefault(Path(file).name, []).append(line)
            with os.fdopen(writer, "w") as stream:
                json.dump(result, stream)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            text = stream.read()
        os.waitpid(child, 0)
        result = json.loads(text)
        failed = [f"{item.nodeid}: {bad}" for item, (_, _, bad) in zip(items, result, strict=True) if bad]
        if failed:
            raise pytest.UsageError("tests fail without any mutant: " + "\n".join(failed))
        return [{f: set(s) for f, s in lines.items()} for lines, _, _ in result], [seconds for _, seconds, _ in result]

    def _fork(self, index: int, tests: Sequence[pytest.Item], order: Sequence[int], seconds: float) -> int:
        mutant = self.mutants[index]
        child = os.fork()
        if child:
            return child
        verdict = LOST
        try:
            _silence()
            limit = int(time.process_time() + SLACK * seconds + SLACK) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
            install(mutant, importlib.import_module(f"{self.package}.{mutant.file.removesuffix('.py')}"))
            verdict = SURVIVED
            for test in order:
                if any(report.failed for report in runtestprotocol(tests[test], log=False, nextitem=None)):
                    self._killer[index * _WORD : (index + 1) * _WORD] = (test + 1).to_bytes(_WORD, "little")
                    verdict = KILLED
                    break
        except BaseException:  # a mutant that breaks the runner itself, or asks it to exit, is noticed, too
            verdict = KILLED if verdict == SURVIVED else LOST
        finally:
            os._exit(verdict)

    def _wait(self, running: dict[int, int], alive: set[int]) -> None:
        child, status = os.wait()
        index = running.pop(child)
        code = os.waitstatus_to_exitcode(status)  # negative: ended by a signal, of the time limit or of a crash
        if code == LOST:
            raise RuntimeError(f"this mutant can't be installed: {self.mutants[index].key}")
        if code == SURVIVED:
            alive.add(index)
        killer = int.from_bytes(self._killer[index * _WORD : (index + 1) * _WORD], "little")
        if killer:
            self._kills[self.mutants[index].file, self.mutants[index].function][killer - 1] += 1


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
