"""Train a base from text. The training loop is in `adapters.training.loop`; `server.jobs` imports this
package.
"""
