"""The verbs (sub-commands) of the `oneseek` command line and their flags, but not the work behind them. Only
`server.__main__` imports this package.
"""
