"""Logs and traces how each request was answered, without deciding anything."""
