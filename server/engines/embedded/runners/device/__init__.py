"""The runner for devices other than the CPU and its self-test, without scheduling; the embedded engine
imports it.
"""
