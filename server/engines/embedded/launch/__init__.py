"""Choosing a device, planning memory and putting the engine together, without running it; composition
imports it.
"""
