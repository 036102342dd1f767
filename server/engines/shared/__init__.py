"""Code that all engines share, without any engine's own code; only `engines` imports it."""
