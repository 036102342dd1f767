"""The verbs of the `oneseek` command line and their flags, not the work behind them; only `server.__main__`
imports it.
"""
