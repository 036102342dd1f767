"""Train a LoRA on a base. The training loop is in `adapters.training.loop`; `server.jobs` imports this
package.
"""
