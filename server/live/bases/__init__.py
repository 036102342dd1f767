"""Names and languages over all bases of a server, without loading any; `live` and above import it."""
