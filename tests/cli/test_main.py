"""The group: quick to import, versions without imports, and exit codes for whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from onnxq import registry
from onnxq.cli import main as cli
from onnxq.errors import UsageError, VerdictError

HEAVY = {"numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "rich", "yaml", "PIL", "scipy"}


def imported_by(arguments: list[str]) -> set[str]:
    """Top-level packages in the process after this command line."""
    script = (
        "import sys; from onnxq.cli.main import main; code = main(sys.argv[1:]); "
        "print('packages', code, *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, encoding="utf-8", check=True)
    word, code, *packages = done.stdout.splitlines()[-1].split()
    assert (word, code) == ("packages", "0"), done.stdout
    return set(packages)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    packages = imported_by(arguments)
    assert "click" in packages
    assert packages & HEAVY == set()


def test_the_heavy_packages_would_be_seen() -> None:
    assert {"numpy", "onnx_graphsurgeon"} <= imported_by(["passes"])


def test_help_lists_every_command_with_a_summary(onnxq: Any) -> None:
    page = onnxq("--help").out
    listed = page.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line.strip()] == list(cli.COMMANDS)
    assert all(len(line.split()) > 2 for line in listed if line.strip())


def test_no_command_prints_the_help_and_fails(onnxq: Any) -> None:
    outcome = onnxq()
    assert (outcome.code, outcome.out) == (2, "")
    assert "Commands:" in outcome.err


def test_version(onnxq: Any) -> None:
    lines = [f"{p} {version(p)}" for p in ("onnxq", "onnx", "onnxruntime")]
    assert onnxq("--version").out.splitlines() == lines


def test_python_m_onnxq_is_the_command(onnxq_process: Any) -> None:
    assert onnxq_process("--version").out.startswith("onnxq ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quantise"], 'there is no command "quantise": did you mean "quantize"?'),
        (["passes", "a", "b"], "got unexpected extra argument (b) (see onnxq passes --help)"),
        (["passes", "no-such-thing-xyz"], None),
        (["inspect"], "missing argument 'MODEL' (see onnxq inspect --help)"),
    ],
)
def test_bad_usage_is_one_sentence(onnxq: Any, arguments: list[str], sentence: str | None) -> None:
    outcome = onnxq(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    if sentence is None:
        assert outcome.sentence.startswith('there is no pass "no-such-thing-xyz": ')
    else:
        assert outcome.sentence == sentence


def raising(error: BaseException) -> Any:
    def names(group: str) -> list[str]:
        raise error

    return names


@pytest.mark.parametrize(("error", "code"), [(UsageError("that makes no sense"), 2), (VerdictError("no"), 1)])
def test_errors_of_the_tree_have_their_exit_code(
    onnxq: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(registry, "names", raising(error))
    outcome = onnxq("passes")
    assert outcome.code == code
    assert outcome.sentence == str(error)


@pytest.mark.parametrize("arguments", [["--debug", "passes"], ["passes", "--debug"]])
def test_debug_shows_the_traceback(onnxq: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(registry, "names", raising(UsageError("that makes no sense")))
    outcome = onnxq(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("Traceback")
    assert outcome.err.endswith("error: that makes no sense\n")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_by_environment(onnxq: Any, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool) -> None:
    monkeypatch.setenv("ONNXQ_DEBUG", value)
    monkeypatch.setattr(registry, "names", raising(UsageError("that makes no sense")))
    assert onnxq("passes").err.startswith("Traceback") == shown


def test_a_bug_has_a_traceback_and_asks_to_be_reported(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", raising(ZeroDivisionError("division by zero")))
    outcome = onnxq("passes")
    assert outcome.code == 70
    assert outcome.err.startswith("Traceback")
    assert outcome.err.splitlines()[-1] == (
        "error: this is a bug in onnxq (ZeroDivisionError): please report it with the traceback above"
    )


def test_interrupted(onnxq: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", raising(KeyboardInterrupt()))
    outcome = onnxq("passes")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "interrupted; no file was left half-written\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "onnxq", "--version"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode != 0
