"""What is measured and how it is exported, without deciding anything; all of `server` may import it."""
