"""Verbs of the command line that make adapters, bases and data, without the jobs that do the work. Only
`server.cli.app` imports this package.
"""
