"""The README's commands are run as they stand, in a folder that has what they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxq.config.job import load_job

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures to calibrate with, labelled pictures in a folder per class."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "models/fashion-res8/model.onnx", path / "model.onnx")
    data = np.load(ROOT / "models/fashion-mnist/eval.npz")
    for index, (image, label) in enumerate(zip(data["image"][:120], data["label"][:120], strict=True)):
        picture = Image.fromarray((image[0] * 255).astype(np.uint8))
        for target in ("pictures", f"labelled/{label}"):
            (path / target).mkdir(parents=True, exist_ok=True)
            picture.save(path / target / f"{index:03}.png")
    gray = re.sub(r"preprocess: \{.*\}", "preprocess: {mean: [0], std: [1]}", blocks("yaml")[0])
    (path / "job.yaml").write_text(gray)
    return path


def test_shell_blocks_run_in_order(folder: Path) -> None:
    commands = [c.split("#")[0].strip() for b in blocks("sh") for c in b.splitlines() if c.strip()]
    assert [c.split()[1] for c in commands] == ["quantize", "quantize", "validate", "gate", "inspect", "quantize"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        # the model of the test is gray: its pictures have one mean, and 28 rows; the job's threshold is its own matter
        gray = command.replace("0.485,0.456,0.406", "0").replace("0.229,0.224,0.225", "1")
        done = subprocess.run(
            gray, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (folder / "model.int8.onnx").is_file() and (folder / "small.onnx").is_file()
    assert (folder / "result.json").read_text().startswith("{")


def test_files_and_links_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
    for named in re.findall(r"`((?:docs|models|onnxq|passes|tests)/[\w./-]+)`", README):
        assert (ROOT / named).exists(), named


def test_the_two_commands_come_first() -> None:
    lines = [line for line in README.splitlines() if line.startswith("    make ")]
    assert lines[0].startswith("    make demo") and lines[1].startswith("    make test")


def test_the_job_file_of_the_readme_loads(folder: Path) -> None:
    job = load_job(folder / "job.yaml")
    assert job.keep_float == ("*/head/*",)
