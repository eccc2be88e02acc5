"""The tree: fixed names, what the wheel holds, what no file may say, and the import layers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGES = {
    "onnxq": "onnxq",
    "passes/onnxq_passes": "onnxq_passes",
    "calibration/onnxq_calibration": "onnxq_calibration",
}
"""Folder in the tree -> folder in the wheel."""


def tracked(root: Path) -> list[Path]:
    """Files under version control (all files, in a copy without it)."""
    done = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := root / name).is_file()]


def modules(root: Path) -> list[Path]:
    return sorted(p for folder in PACKAGES for p in (root / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "name",
    [
        "pyproject.toml",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "action.yml",
        "examples/ci/ci.sh",
        "docs/architecture.md",
        "onnxq/py.typed",
        "passes/onnxq_passes/py.typed",
        "passes/README.md",
        "calibration/onnxq_calibration/py.typed",
        "calibration/README.md",
        "models",
        "tests/plugin/pyproject.toml",
        ".ci/run",
    ],
)
def test_fixed_names_exist(root: Path, name: str) -> None:
    assert (root / name).exists()


def test_no_links(root: Path) -> None:
    assert [p for p in tracked(root) if p.is_symlink()] == []


def test_every_model_folder_says_what_it_is(root: Path) -> None:
    folders = {p.parent for p in tracked(root) if p.parent.parent == root / "models" and p.suffix in (".onnx", ".yaml")}
    assert [f.name for f in sorted(folders) if not (f / "model.yaml").is_file()] == []


def test_the_wheel_made_from_the_sdist_holds_the_tree(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {n for n in archive.namelist() if ".dist-info/" not in n}
        points = next(archive.read(n).decode() for n in archive.namelist() if n.endswith("entry_points.txt"))
        licences = [n for n in archive.namelist() if n.endswith("LICENSE")]
    in_tree = {
        f"{target}/{path.relative_to(root / folder).as_posix()}"
        for folder, target in PACKAGES.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_wheel == in_tree
    assert "onnxq = onnxq.cli.main:main" in points
    assert len(licences) == 1
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "tests/test_layout.py", "models/fetch.py"} <= in_sdist


def test_no_file_mentions_a_folder_of_one_machine(root: Path) -> None:
    folders = [f"/{name}/".encode() for name in ("root", "tmp", "work", "home/runner")]
    found = {
        f"{path.relative_to(root)}: {folder.decode()}"
        for path in tracked(root)
        for folder in folders
        if folder in path.read_bytes()
    }
    assert found == set()


def test_every_public_module_has_a_docstring(root: Path) -> None:
    silent = [
        str(p.relative_to(root))
        for p in modules(root)
        if (not p.stem.startswith("_") or p.stem == "__init__") and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []


def test_every_public_class_and_function_has_a_docstring(root: Path) -> None:
    silent = []
    for path in modules(root):
        if path.stem.startswith("_"):
            continue
        for node in ast.parse(path.read_text()).body:
            named = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
            if named and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(root)}: {node.name}")
    assert silent == []


def test_no_file_is_asking_to_be_two(root: Path) -> None:
    long = {str(p.relative_to(root)): n for p in modules(root) if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_the_makefile_lists_its_targets(root: Path) -> None:
    done = subprocess.run(
        ["make", "-C", str(root), "--no-print-directory"], capture_output=True, encoding="utf-8", check=True
    )
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    phony = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert sorted(targets) == sorted(phony[1].split())
    assert targets[:4] == ["help", "demo", "test", "test-slow"], "the first ones a newcomer reads"


def test_ci_runs_the_tests_and_then_the_checks(root: Path) -> None:
    script = root / ".ci/run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text().splitlines()
    assert lines.index("set -euo pipefail") < lines.index("make test") < lines.index("make check")
