"""Windows ML's catalogue of execution providers: lists, installs and registers them; the embedded engine
imports it.
"""
