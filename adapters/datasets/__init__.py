"""The identity data, English and Swedish, as JSON lines beside this file."""
