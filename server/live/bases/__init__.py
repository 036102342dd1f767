"""Finds the base that answers a request, by adapter names and languages, without loading any base; `live` and
above import this package.
"""
