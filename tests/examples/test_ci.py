"""The template repository, copied away, run by its own script: green, red with the layer's name, inconclusive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAYER = "/blocks/blocks.1/relu/Relu"


def environment(**more: str) -> dict[str, str]:
    models = ROOT / "models"
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL": str(models / "fashion-res8/model.onnx"),
        "CALIB": str(models / "fashion-mnist/calib.npz"),
        "EVAL": str(models / "fashion-mnist/eval.npz"),
        **more,
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ci") / "template"
    shutil.copytree(ROOT / "examples/ci", folder, ignore=shutil.ignore_patterns("build"))
    return folder


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, encoding="utf-8", check=False
    )


def outcomes(folder: Path) -> dict[str, str]:
    found = {}
    for case in ET.parse(folder / "build/gate.xml").iter("testcase"):
        found[case.attrib["name"]] = next((c.tag for c in case), "")
    return found


def test_green_red_and_inconclusive(repository: Path) -> None:
    good = run(repository, "./ci.sh")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Gate: pass" in good.stdout
    assert set(outcomes(repository).values()) == {"system-out"}

    made = run(repository, sys.executable, "spoil.py", "build/int8.onnx", "build/wrong.onnx")
    assert made.returncode == 0, made.stderr
    bad = run(repository, "./ci.sh", "build/wrong.onnx", SAMPLES="400")
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert f"drift of the layers: Relu {LAYER} moved: its own encoding leaves" in bad.stdout
    assert f"Relu {LAYER}: its uint8 encoding alone leaves" in bad.stdout.split("Where it comes from")[1]
    assert outcomes(repository)["drop of top1"] == "failure"

    few = run(repository, "./ci.sh", "build/int8.onnx", SAMPLES="20", GITHUB_STEP_SUMMARY=str(repository / "step.md"))
    assert few.returncode == 3, few.stdout + few.stderr
    assert "about 381 samples like these would" in few.stdout
    assert (repository / "step.md").read_text().startswith("## ❔ onnxq gate: inconclusive")
    assert outcomes(repository)["drop of top1"] == "error"


def test_the_committed_baseline_is_what_the_script_writes(repository: Path) -> None:
    """Everything but versions of packages and hashes of files, whatever the machine: within rounding."""
    done = run(repository, "./ci.sh", UPDATE="new.json", SAMPLES="20")
    assert done.returncode in (0, 3), done.stderr
    old, new = (yaml.safe_load((repository / f).read_text()) for f in ("baselines/fashion-res8.json", "new.json"))
    assert set(old["tensors"]) == set(new["tensors"]) and old["integer_ops"] == new["integer_ops"]
    for name, tensor in old["tensors"].items():
        one, two = (min(float(t["own_sqnr_db"]), 200.0) for t in (tensor, new["tensors"][name]))
        assert abs(one - two) < 0.1, name


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    workflow = yaml.safe_load((ROOT / "examples/ci/.github/workflows/gate.yml").read_text())
    given = workflow["jobs"]["gate"]["steps"][-1]["with"]
    required = {name for name, spec in action["inputs"].items() if spec.get("required")}
    assert required <= set(given) <= set(action["inputs"])


def test_the_readme_names_what_is_there() -> None:
    folder = ROOT / "examples/ci"
    for line in (folder / "README.md").read_text().splitlines():
        if line.startswith("| `"):
            assert (folder / line.split("`")[1]).exists(), line


@pytest.mark.slow
def test_two_thousand_samples_take_less_than_30_seconds_and_ten_runs_agree(repository: Path, tmp_path: Path) -> None:
    """Seconds of the processor, which a busy machine does not change as much as those of the clock."""
    assert run(repository, "./ci.sh").returncode == 0
    seen = set()
    models = ROOT / "models"
    for _ in range(10):
        before = os.times()
        done = run(
            repository, "onnxq", "gate", "--baseline", str(models / "fashion-res8/model.onnx"),
            "--candidate", "build/int8.onnx", "--data", str(models / "fashion-mnist/eval.npz"), "--config", "gate.yaml",
            "--threads", "1", "--json",
        )  # fmt: skip
        after = os.times()
        assert done.returncode == 0, done.stderr
        assert after.children_user + after.children_system - before.children_user - before.children_system < 30
        seen.add(done.stdout)
    assert len(seen) == 1
