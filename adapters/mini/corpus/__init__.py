"""The small world that the mini base is taught (data files in `data/`, and what deals them out), without
training; `adapters.mini` imports it.
"""
