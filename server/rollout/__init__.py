"""Canaries and shadows: which version answers, how it compares and when it ends, without HTTP; `serving` and
above import it.
"""
