"""From logits to tokens, without running a graph; the embedded engine imports it."""
