"""Export of models to ONNX files, and inference on such files."""
