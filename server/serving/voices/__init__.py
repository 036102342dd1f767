"""Asks several voices (the models that answer one question together) and finds their consensus; `api`
imports it.
"""
