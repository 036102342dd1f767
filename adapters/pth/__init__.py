"""From files of an existing installation to adapters, each opened in a child process alone; the registry's
callers import it.
"""
