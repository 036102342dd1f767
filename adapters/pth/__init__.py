"""From a `.pth` file to an adapter, with the pickle opened in a child process alone; the registry's callers
import it.
"""
