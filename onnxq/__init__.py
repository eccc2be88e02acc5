"""The compiler-grade quantizer for ONNX: a float model and a folder of samples in, a faster, checked int8 model out.

Importing this package imports nothing else. `onnxq.driver` puts the stages together; `onnxq.testing` is for plugin
authors.
"""
