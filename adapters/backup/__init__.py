"""Backups of a home: one archive, checked when made and before it is restored; `server.cli` imports it."""
