"""The engine for any CPU: one ONNX graph, a Python scheduler, adapters mixed in every batch."""
