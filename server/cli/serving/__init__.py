"""Verbs of the command line that start a server or show what it would serve. Only `server.cli.app` imports
this package.
"""
