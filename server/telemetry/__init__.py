"""Logs and traces how each request was answered, without changing the answer."""
