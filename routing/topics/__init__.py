"""Which adapter's example questions a question is like, without policies; `routing` imports it."""
