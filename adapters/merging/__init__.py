"""Joining adapters with a base or with each other, without torch outside its child processes; `server.cli`
imports it.
"""
