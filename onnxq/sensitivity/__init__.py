"""How much of the output error each quantized tensor causes, measured with one instrumented model."""
