"""The runner for the CPU, without device code; the embedded engine imports it."""
