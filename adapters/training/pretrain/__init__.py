"""Train a base model on text. The training loop is in `adapters.training.loop`; `server.jobs` imports this
package.
"""
