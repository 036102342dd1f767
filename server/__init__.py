"""The server: its HTTP surface, its engines and its command line, but no training code; nothing outside
imports it.
"""
