"""Models and samples that take milliseconds: a real float classifier of four classes, and what belongs to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4
SHAPE = (3, 8, 8)


def classifier(seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm: `image` [N, 3, 8, 8] to `scores` [N, 4]."""
    random = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32) / 2, name)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1", "b1"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], "relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
            helper.make_node("Flatten", ["p"], ["f"], "flatten"),
            helper.make_node("Gemm", ["f", "w2", "b2"], ["scores"], "gemm"),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 8, CLASSES), weight("b2", CLASSES)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_classifier(path: Path, seed: int = 0) -> Path:
    """The classifier as a file."""
    onnx.save(classifier(seed), path)
    return path


def save_samples(path: Path, count: int = 16) -> Path:
    """Samples in one npz, labels 0 to 3 in turn."""
    random = np.random.default_rng(1)
    images = random.standard_normal((count, *SHAPE)).astype(np.float32)
    np.savez(path, image=images, labels=np.arange(count) % CLASSES)
    return path


def save_pictures(folder: Path, count: int = 6) -> Path:
    """A folder of small PNG pictures."""
    from PIL import Image

    random = np.random.default_rng(2)
    folder.mkdir()
    for index in range(count):
        values = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"picture_{index}.png")
    return folder
