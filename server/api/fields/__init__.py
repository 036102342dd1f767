"""Defines the fields of every endpoint's JSON body, and converts JSON to them. The rest of `server.api`
imports this package.
"""
