"""The page "Write a pass" is followed to the letter: files written, tests run, package installed, pipeline run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "passes" / "writing.md").read_text(encoding="utf-8")
MODEL = """<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) {
    p = Neg(x) q = Neg(p) y = Exp(q) }"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pass")
    for language in ("python", "toml", "yaml"):
        for block in blocks(language):
            name = re.match(r"# ([\w.]+)\n", block)
            assert name is not None, "each file says its name in the first line"
            (path / name[1]).write_text(block)
    onnx.save(parser.parse_model(MODEL), path / "model.onnx")
    return path


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "installed")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_page_from_top_to_bottom(folder: Path) -> None:
    commands = [c for b in blocks("sh") for c in b.splitlines()]
    assert [c.split()[0] for c in commands] == ["python", "onnxq", "onnxq"]
    out = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", commands[0].split()[-1]], folder)
    assert "4 passed" in out
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        "installed",
        ".",
    ]
    run(pip, folder)
    onnxq = [sys.executable, "-m", "onnxq"]
    assert "Let Neg(Neg(x)) be x" in run([*onnxq, *commands[1].split()[1:]], folder)
    run([*onnxq, *commands[2].split()[1:]], folder)
    assert [n.op_type for n in onnx.load(folder / "out.onnx").graph.node] == ["Exp"]
