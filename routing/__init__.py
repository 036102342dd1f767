"""Which language a question is written in and which adapter answers it, without I/O per request; `server`
imports it.
"""
