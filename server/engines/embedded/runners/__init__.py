"""What runs a graph (protocol, adapters, row lengths), without scheduling; the embedded engine imports it."""
