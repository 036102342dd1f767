"""Runs a graph with its adapters on the CPU or a device, without scheduling; the embedded engine imports
it.
"""
