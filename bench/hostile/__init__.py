"""Measure how long other clients wait while a server gets requests that are built to overload it; only tests
import this package.
"""
