"""Write a small TensorFlow graph with fake quantization as tf2onnx does; the file is committed.

    python make_tensorflow.py     # where tensorflow (CPU) and tf2onnx are installed

`tensorflow-qat.onnx`: NHWC, tf.quantization.fake_quant_with_min_max_* on data and weights, seeded random weights.
What counts is the form of the graph, so nothing is trained.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
import tf2onnx

HERE = Path(__file__).resolve().parent


def main() -> None:
    random = np.random.default_rng(1)

    def weight(*shape: int) -> tf.Tensor:
        values = (random.standard_normal(shape) * np.prod(shape[:-1]) ** -0.5).astype(np.float32)
        most = np.abs(values).max()
        return tf.quantization.fake_quant_with_min_max_args(tf.constant(values), -most, most, num_bits=8)

    def data(x: tf.Tensor, low: float, high: float) -> tf.Tensor:
        return tf.quantization.fake_quant_with_min_max_vars(x, tf.constant(low), tf.constant(high), num_bits=8)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32, name="image")])
    def net(image: tf.Tensor) -> tf.Tensor:
        x = data(image, 0.0, 1.0)
        x = tf.nn.relu(
            tf.nn.conv2d(x, weight(3, 3, 1, 8), 2, "SAME") + tf.constant(random.standard_normal(8), tf.float32) * 0.1
        )
        x = data(x, 0.0, 3.0)
        y = tf.nn.relu6(tf.nn.conv2d(x, weight(3, 3, 8, 8), 1, "SAME"))
        y = data(y, 0.0, 6.0)
        x = data(x + y, 0.0, 8.0)
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.reshape(x, [-1, 7 * 7 * 8])
        x = tf.linalg.matmul(x, weight(7 * 7 * 8, 10))
        return tf.identity(data(x, -8.0, 8.0), name="logits")

    path = HERE / "tensorflow-qat.onnx"
    proto, _ = tf2onnx.convert.from_function(net, input_signature=net.input_signature, opset=13, output_path=str(path))
    ops = sorted({n.op_type for n in proto.graph.node})
    print(f"{path.name}: {path.stat().st_size} bytes, {len(proto.graph.node)} nodes: {', '.join(ops)}")


if __name__ == "__main__":
    main()
