"""Convert files of an existing installation to adapters. Each file is opened in a child process only. The
callers of the registry import this package.
"""
