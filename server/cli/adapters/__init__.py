"""Verbs of the command line for adapters, their versions and the ledger, but not for training. Only
`server.cli.app` imports this package.
"""
