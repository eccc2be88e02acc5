"""The only wing that imports ONNX Runtime."""
