"""Decides which tokens each engine step computes and where their keys and values are stored, without tensors;
the embedded engine imports it.
"""
