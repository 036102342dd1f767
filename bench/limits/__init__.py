"""Computes the most that a device can do with a base and its adapters: time of a step, conversations,
cost.
"""
