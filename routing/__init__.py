"""Which language a question is written in, and which adapter answers it. Pure: no I/O per request."""
