"""What an adapter is, where it is found, and how it comes to be."""
