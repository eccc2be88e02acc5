"""Colours only where a terminal wants them; completion in the shells that click knows."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def on_a_terminal(arguments: list[str], folder: Path, **environment: str) -> bytes:
    """What a command writes to a terminal."""
    ours, its = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxq", *arguments],
        cwd=folder,
        env={**clean, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    written = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            some = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not some:
            break
        written += some
    assert process.wait() == 0, written
    os.close(ours)
    return written


def test_colours_are_there_unless_they_are_not_wanted(tmp_path: Path) -> None:
    tiny.save_classifier(tmp_path / "model.onnx")
    coloured = on_a_terminal(["inspect", "model.onnx"], tmp_path)
    assert COLOUR.search(coloured)
    plain = on_a_terminal(["inspect", "model.onnx"], tmp_path, NO_COLOR="1")
    assert not COLOUR.search(plain)
    letters = [[line.rstrip() for line in text.splitlines()] for text in (COLOUR.sub(b"", coloured), plain)]
    assert letters[0] == letters[1]


def complete(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from onnxq.cli.main import main; sys.exit(main())"],
        env={
            **os.environ,
            "_ONNXQ_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [answer.rpartition(",")[2] for answer in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("onnxq sho", ["show"]),
        ("onnxq doc", ["doctor"]),
        ("onnxq quantize --strict --calib-s", ["--calib-samples"]),
        ("onnxq quantize model.onnx --method m", ["minmax", "mixed", "mse"]),
        ("onnxq quantize model.onnx --method au", ["auto"]),
        ("onnxq quantize model.onnx --target te", ["tensorrt"]),
        ("onnxq quantize model.onnx --placement r", ["rules"]),
        ("onnxq validate a b --metric top", ["top1", "top5"]),
        ("onnxq passes fuse-q", None),
        ("onnxq show q", ["qoperator"]),
        ("onnxq nonsense x", []),
    ],
)
def test_words_are_completed(line: str, answers: list[str] | None) -> None:
    found = complete(line)
    if answers is None:
        assert len(found) > 3 and all(name.startswith("fuse-q") for name in found)
    else:
        assert found == answers


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
def test_scripts_for_the_shells(shell: str, word: str) -> None:
    # bash is asked for its version by click itself, which needs bash 4.4
    done = subprocess.run(
        [sys.executable, "-m", "onnxq"],
        env={**os.environ, "_ONNXQ_COMPLETE": f"{shell}_source"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert word in done.stdout and f"_ONNXQ_COMPLETE={shell}_complete" in done.stdout
