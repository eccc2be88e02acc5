"""Acme's additions to onnxq."""
