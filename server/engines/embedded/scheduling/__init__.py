"""Decides which tokens each step computes, without tensors; the embedded engine imports it."""
