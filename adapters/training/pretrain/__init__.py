"""Training a base from text, without the loop; `server.jobs` imports it."""
