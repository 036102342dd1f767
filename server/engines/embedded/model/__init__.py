"""Builds an ONNX graph on disk from a Hugging Face checkpoint, without running it; the embedded engine
imports it.
"""
