"""Convert the adapter files of an older OneSeek installation, such as .pth, to adapters in PEFT format. Only
a child process opens such a file. `server.cli` imports this package.
"""
