"""action.yml, run step by step as a runner would: inputs become variables, outputs a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]


def filled(text: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], text)


def run(step: dict[str, Any], folder: Path, **given: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    inputs = {n: str(spec.get("default", "")) for n, spec in ACTION["inputs"].items()}
    inputs.update({n.replace("_", "-"): v for n, v in given.items()})
    output = folder / "output.txt"
    output.write_text("")
    variables = {k: filled(v, inputs) for k, v in step.get("env", {}).items()}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={
            **os.environ, **variables, "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return done, dict(line.split("=", 1) for line in output.read_text().splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.save_classifier(tmp_path / "float model.onnx")
    tiny.save_classifier(tmp_path / "other.onnx", seed=3)
    tiny.save_samples(tmp_path / "eval.npz", 60)
    (tmp_path / "gate.yaml").write_text("metrics: [{metric: agreement, max_drop: 0.2}]\n")
    return tmp_path


def judged(folder: Path, candidate: str, **more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    given = {"baseline": "float model.onnx", "candidate": candidate, "config": "gate.yaml", "data": "eval.npz", **more}
    return run(STEPS[-1], folder, **given)


def test_shape() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(ACTION)
    for step in STEPS:
        assert step["shell"] == "bash" and step["name"]
        assert "${{" not in step["run"], "an input inside a script could run as code"
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    for output in ACTION["outputs"].values():
        name = re.fullmatch(r"\$\{\{ steps\.gate\.outputs\.([\w-]+) \}\}", output["value"])
        assert name and f'echo "{name[1]}=' in STEPS[-1]["run"]


@pytest.mark.parametrize(
    ("candidate", "more", "code", "outcome"),
    [
        ("float model.onnx", {"junit": "gate.xml", "report": "gate.json"}, 0, "pass"),
        ("other.onnx", {}, 1, "fail"),
        ("float model.onnx", {"samples": "10"}, 3, "inconclusive"),
        ("float model.onnx", {"samples": "10", "inconclusive": "pass"}, 0, "inconclusive"),
        ("other.onnx", {"inconclusive": "pass"}, 1, "fail"),
        ("missing.onnx", {}, 2, "error"),
    ],
)
def test_the_gate_step(folder: Path, candidate: str, more: dict[str, str], code: int, outcome: str) -> None:
    done, outputs = judged(folder, candidate, **more)
    assert done.returncode == code, done.stdout + done.stderr
    assert outputs["outcome"] == outcome
    assert outputs["exit-code"] == str(3 if outcome == "inconclusive" else code)
    if outcome != "error":
        assert f"onnxq gate: {outcome}" in (folder / "summary.md").read_text()
        assert ("::error " in done.stderr) == (outcome == "fail")
    for key in ("junit", "report"):
        assert key not in more or (folder / more[key]).is_file()


def test_an_input_is_never_code(folder: Path) -> None:
    done, outputs = judged(folder, '$(touch hacked); "`touch hacked`".onnx')
    assert done.returncode == 2 and outputs["outcome"] == "error"
    assert not (folder / "hacked").exists()


def test_the_install_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip does all but install: the path is right and the project can be built."""
    assert STEPS[0]["if"] == "inputs.install == 'true'"
    for name in ("DRY_RUN", "NO_DEPS", "NO_INDEX"):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it the wrong way round: 0 turns isolation off
    done, _ = run(STEPS[0], folder)
    assert done.returncode == 0, done.stderr
