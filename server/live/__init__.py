"""State that changes while a server runs (its adapters, which of them are in the engine, the registry),
without HTTP; `rollout` and above import this package.
"""
