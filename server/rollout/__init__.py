"""Canaries and shadows: who gets which version, how it does and when it ends, without HTTP; `serving` and
above import it.
"""
