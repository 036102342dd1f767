"""Changes to a running server's adapters, for those who hold an admin key."""
