"""The runner for devices other than the CPU (GPUs and NPUs) and its self-test, without scheduling; the
embedded engine imports it.
"""
