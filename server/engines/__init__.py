"""Engines that run a base with its adapters behind one protocol, without HTTP or routing; `live` and above
import them.
"""
