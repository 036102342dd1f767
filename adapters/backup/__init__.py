"""Back up OneSeek's home to one archive and restore it; both check all contents first. `server.cli` imports
this package.
"""
