"""The engine on a device other than the CPU: one runner for all of them, and what judges it."""
