"""Writes the ONNX nodes that differ between the fused graph (CPU) and the portable graph (other devices),
without weights; `model` imports it.
"""
