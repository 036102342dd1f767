"""State that changes while a server runs (adapters, residency, the registry), without HTTP; `rollout` and
above import it.
"""
