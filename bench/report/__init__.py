"""Writes a measurement's progress, table, report.json and report.html, without measuring; `bench.cli`
imports it.
"""
