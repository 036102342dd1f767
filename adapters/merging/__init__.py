"""Merge an adapter into its base, or combine several adapters into one. torch is only used in child
processes; `server.cli` imports this package.
"""
