"""A float classifier, its int8 form, and samples: made once, read by all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from onnxq.config.job import DataSection, Job, Source, ValidateSection
from onnxq.driver import quantize

COUNT = 400


@dataclass(frozen=True)
class Pair:
    """`reference` and `candidate`, and labelled samples whose labels are what the float model says."""

    folder: Path
    reference: Path
    candidate: Path
    data: Path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("gate")
    reference = tiny.save_classifier(folder / "float.onnx")
    images = np.random.default_rng(1).standard_normal((COUNT, *tiny.SHAPE)).astype(np.float32)
    from onnxq.runtime.session import Session

    labels = Session(reference, threads=1).run({"image": images})["scores"].argmax(axis=1)
    np.savez(folder / "eval.npz", image=images, label=labels)
    candidate = folder / "int8.onnx"
    from onnxq.config.placing import PlacementSection

    quantize(
        Job(
            model=reference,
            output=candidate,
            data=DataSection(calib=Source(path=str(folder / "eval.npz"), limit=32)),
            validate=ValidateSection(enabled=False),
            placement=PlacementSection(by="rules"),
        )
    )
    return Pair(folder, reference, candidate, folder / "eval.npz")


@pytest.fixture(scope="session")
def spoilt(pair: Pair) -> Path:
    """The int8 form with the scale of the convolution's result at a tenth."""
    model = onnx.load(pair.candidate)
    scales = {t.name: t for t in model.graph.initializer}
    quantizer = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] != "image")
    scale = scales[quantizer.input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / np.float32(10), scale.name))
    onnx.save(model, pair.folder / "spoilt.onnx")
    return pair.folder / "spoilt.onnx"


@pytest.fixture
def gate(pair: Pair, tmp_path: Path, onnxq: Any) -> Callable[..., Any]:
    """`gate("size: {max_ratio: 1}", "--samples", 20, candidate=path)`: the command, with these limits."""

    def run(limits: str, *arguments: object, candidate: Path | None = None) -> Any:
        config = tmp_path / "gate.yaml"
        config.write_text(limits)
        given = ("--baseline", pair.reference, "--candidate", candidate or pair.candidate, "--data", pair.data)
        return onnxq("gate", *given, "--config", config, "--threads", 1, *arguments)

    return run
