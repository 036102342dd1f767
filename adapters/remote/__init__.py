"""Fetch adapters by URL into a folder that the registry can take in, without serving. `server` uses this
package.
"""
