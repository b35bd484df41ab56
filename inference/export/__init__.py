"""A run as a folder of its own: weights, code, README, ONNX."""
