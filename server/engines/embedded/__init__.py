"""The embedded engine: runs a base model with ONNX Runtime on the CPU, a GPU or an NPU, without PyTorch; only
`server.engines` and the code that starts the server import it.
"""
