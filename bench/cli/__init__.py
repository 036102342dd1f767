"""The verbs of `oneseek bench` and their flags, not the measuring behind them; only `bench.__main__` and
`oneseek bench` import it.
"""
