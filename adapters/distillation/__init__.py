"""A teacher's answers become a data set for a small student. Light: torch runs in processes of its own."""
