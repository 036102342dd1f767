"""Read the models and metrics of the server under test over HTTP, and change its adapters; the load is sent
elsewhere. `bench.cli` and `bench.scenarios` import this package.
"""
