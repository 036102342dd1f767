"""The small world that the mini base learns: data files in `data/`, and code that draws from them, without
training. `adapters.mini` imports it.
"""
