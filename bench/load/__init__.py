"""A load generator, and the figures of the steady state of its runs. It starts no servers; `bench` imports
this package.
"""
