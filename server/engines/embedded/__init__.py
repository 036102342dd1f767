"""The engine for CPUs and devices over ONNX Runtime, without torch; only `engines` and composition import
it.
"""
