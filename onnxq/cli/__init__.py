"""The command line: parses, calls the driver, prints. Importing it imports neither numpy nor onnx nor onnxruntime."""
