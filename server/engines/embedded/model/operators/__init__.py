"""What the two graph variants write in their own way, node by node, without weights; `model` imports it."""
