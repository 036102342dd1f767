"""Words' evidence for each language (letters, frequencies, lists), without a prior; `routing` imports it."""
