"""Judges a quantized model: accuracy, speed, what runs in integer kernels, and the gate."""
