"""Versions, aliases and their pointers, on disk and in memory, without HTTP; `server` imports it."""
