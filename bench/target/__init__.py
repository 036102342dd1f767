"""Reads models and metrics of the measured server over HTTP, and changes its adapters, without sending load;
`bench.cli` and `bench.scenarios` import it.
"""
