"""The settings: their schema, sources and values, without acting on them. Every package in `server` may
import it.
"""
