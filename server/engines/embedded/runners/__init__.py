"""Runs a base model's ONNX graph with its adapters on the CPU, a GPU or an NPU, without scheduling; the
embedded engine imports it.
"""
