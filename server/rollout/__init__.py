"""Canaries and shadows: which version answers a request, how versions compare and when a trial ends, without
HTTP; `serving` and above import this package.
"""
