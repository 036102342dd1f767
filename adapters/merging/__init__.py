"""Merge an adapter into its base, or combine adapters. torch is only used in child processes; `server.cli`
imports this package.
"""
