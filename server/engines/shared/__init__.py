"""What every engine needs, without any engine's own code; only `engines` imports it."""
