"""Creates an embedded engine: chooses a device, plans memory and assembles the parts, without starting the
engine; the code that starts the server imports it.
"""
