"""The runner that computes a base model's graph on the CPU, without code for other devices; the embedded
engine imports it.
"""
