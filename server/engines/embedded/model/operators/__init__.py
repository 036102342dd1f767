"""Writes the ONNX nodes that differ between the two graph variants, without weights; `model` imports it."""
