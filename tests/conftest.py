"""What every test directory may use: the command line in this process and in one of its own, and tiny models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxq.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
# modules copy the environment for their processes while they are imported: those share one folder
_CACHES = tempfile.TemporaryDirectory(prefix="onnxq-caches-")
os.environ["ONNXQ_CACHE_DIR"] = _CACHES.name
PROGRESS = re.compile(r"[a-z ]+: \d+( of \d+)? \((took )?\d+ s, [\d.]+/s(, \d+ s left)?\)")


@dataclass(frozen=True)
class Outcome:
    """What a command line gave back."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """Lines of stderr, without those about progress (which a busy machine shows and an idle one does not)."""
        return [line for line in self.err.splitlines() if not PROGRESS.fullmatch(line)]

    @property
    def sentence(self) -> str:
        """The one error sentence; fails unless stderr is exactly that."""
        lines = self.complaints
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, and never the user's."""
    folder = Path(_CACHES.name) / uuid.uuid4().hex
    monkeypatch.setenv("ONNXQ_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture
def onnxq(capfd: pytest.CaptureFixture[str]) -> Command:
    """`onnxq("inspect", path)`: the command in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def onnxq_process() -> Command:
    """`onnxq_process("passes", env={...}, cwd=...)`: the command as a user starts it, with one ORT thread."""

    def run(*arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "onnxq", *(str(a) for a in arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in how many random graphs each pass fired and refused, over all processes."""
    counts: dict[str, list[int]] = {}
    for report in (r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])):
        for key, rows in getattr(report, "user_properties", ()):
            if key == "random graphs":
                for name, row in rows.items():
                    counts[name] = [a + b for a, b in zip(counts.get(name, [0, 0, 0]), row, strict=True)]
    if counts:
        terminalreporter.section("random graphs")
        terminalreporter.write_line(f"{'pass':32}{'graphs':>8}{'fires in':>10}{'refuses in':>12}")
        for name, (graphs, fired, refused) in sorted(counts.items()):
            terminalreporter.write_line(f"{name:32}{graphs:8}{fired:10}{refused:12}")
