"""A package that is not ours, built and installed by pip, used by name through the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

HERE = Path(__file__).resolve().parent

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {4, 1, 1, 1, 1, 4, 1, 1, 1, 1, 4, 1, 1, 1, 1, 4}>
{ [gemm] a = Gemm(x, w) [first] b = Relu(a) [second] y = Relu(b) }"""


def install(source: Path, target: Path) -> Path:
    """pip install without network; `target` then works as PYTHONPATH."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run([*command, *options], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return target


def copy(folder: Path, *, name: str, module: str) -> Path:
    """The plugin's source under another name."""
    source = shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    text = (source / "pyproject.toml").read_text()
    (source / "pyproject.toml").write_text(text.replace("onnxq-acme", name).replace("onnxq_acme", module))
    (source / "src/onnxq_acme").rename(source / "src" / module)
    return source


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the installed plugin."""
    source = copy(tmp_path_factory.mktemp("source") / "acme", name="onnxq-acme", module="onnxq_acme")
    return install(source, tmp_path_factory.mktemp("site"))


@pytest.fixture
def with_plugin(installed: Path, onnxq_process: Any, tmp_path: Path) -> Any:
    """The command with the plugin installed, in an empty folder with a model."""
    onnx.save(onnx.parser.parse_model(MODEL), tmp_path / "model.onnx")

    def run(*arguments: object) -> Any:
        return onnxq_process(*arguments, env={"PYTHONPATH": str(installed)}, cwd=tmp_path)

    return run


def test_it_is_not_there_before(onnxq: Any) -> None:
    assert "acme" not in onnxq("passes").out


def test_its_pass_is_listed_with_its_package(with_plugin: Any) -> None:
    outcome = with_plugin("passes")
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if "acme" in line]
    assert line.split()[0] == "acme-merge-relus"
    assert line.endswith("Let a Relu behind a Relu read what the first one reads.  (onnxq-acme)")


def test_its_pass_shows_its_settings(with_plugin: Any) -> None:
    described = json.loads(with_plugin("passes", "acme-merge-relus", "--json").out)
    about = "rewrite at most so many; the others are refused."
    assert described["settings"] == [{"name": "limit", "type": "int", "default": "1000", "about": about}]
    assert "example" not in described


def test_its_method_metric_and_data_work_by_name(with_plugin: Any, tmp_path: Path) -> None:
    outcome = with_plugin(
        *("quantize", "model.onnx", "--calib", "acme-ramps", "--method", "acme-trimmed", "--placement", "rules"),
        *("--eval", "acme-ramps", "--metric", "acme-hits", "--threads", "1", "--json"),
    )
    assert outcome.code == 0, outcome.err
    metric = json.loads(outcome.out)["accuracy"]["metric"]
    assert (metric["name"], metric["samples"], metric["reference"]) == ("acme-hits", 32, 100.0)
    assert (tmp_path / "model.int8.onnx").is_file()


def input_scale(path: Path) -> float:
    """Scale of the QuantizeLinear that reads the model's input."""
    graph = onnx.load(path).graph
    (quantize,) = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x"]
    (scale,) = [i for i in graph.initializer if i.name == quantize.input[1]]
    return float(onnx.numpy_helper.to_array(scale))


def test_its_method_makes_the_range(with_plugin: Any, tmp_path: Path) -> None:
    for method in ("minmax", "acme-trimmed"):
        outcome = with_plugin(
            *("quantize", "model.onnx", "--calib", "acme-ramps", "--method", method, "--placement", "rules"),
            *("-o", f"{method}.onnx", "--no-validate"),
        )
        assert outcome.code == 0, outcome.err
    ratio = input_scale(tmp_path / "acme-trimmed.onnx") / input_scale(tmp_path / "minmax.onnx")
    np.testing.assert_allclose(ratio, 0.9, rtol=1e-5)


@pytest.mark.parametrize(("limit", "relus_in_a_row"), [(1000, 0), (0, 1)])
def test_its_pass_runs_in_a_pipeline_with_settings(
    with_plugin: Any, tmp_path: Path, limit: int, relus_in_a_row: int
) -> None:
    (tmp_path / "job.yaml").write_text(
        "model: model.onnx\ndata: {calib: {path: acme-ramps}}\nvalidate: {enabled: false}\n"
        "placement: {by: rules}\n"
        f"pipeline: [deduplicate-names, acme-merge-relus: {{limit: {limit}}}, eliminate-dead, insert-qdq]\n"
    )
    outcome = with_plugin("quantize", "--config", "job.yaml")
    assert outcome.code == 0, outcome.err
    graph = onnx.load(tmp_path / "model.int8.onnx").graph
    assert [n.op_type for n in graph.node].count("Relu") == 1 + relus_in_a_row


def test_a_name_clash_names_both_packages(installed: Path, onnxq_process: Any, tmp_path: Path) -> None:
    twin = install(copy(tmp_path / "twin", name="onnxq-twin", module="onnxq_twin"), tmp_path / "site")
    outcome = onnxq_process("passes", env={"PYTHONPATH": f"{installed}:{twin}"})
    assert outcome.code == 2
    assert outcome.sentence == (
        'two packages register the pass "acme-merge-relus" (onnxq-acme and onnxq-twin): uninstall one'
    )


def test_it_keeps_the_contracts(installed: Path, tmp_path: Path) -> None:
    script = """
from onnxq.testing import assert_rewrite, check_calibrator, check_pass
from onnxq_acme.calibrators import Trimmed
from onnxq_acme.passes import MergeRelus

check_pass(MergeRelus)
check_calibrator(Trimmed)
head = '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y, float[2] b) '
twice = head + "{ [first] b = Relu(x) [second] y = Relu(b) }"
once = head + "{ [first] b = Relu(x) [second] y = Relu(x) }"
assert_rewrite(MergeRelus(), twice, once, rewrites=1, atol=0)
assert_rewrite(MergeRelus(limit=0), twice, twice, rewrites=0, refused=["the limit of 0"], atol=0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
