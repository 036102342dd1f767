"""Compute the theoretical limits of a device that serves a base with adapters: time of a step, number of
conversations, cost.
"""
