"""Download adapters from URLs into a folder from which the registry can add them. `server` uses
this package.
"""
