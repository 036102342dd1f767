"""From a checkpoint to an ONNX graph on disk, without running it; the embedded engine imports it."""
