"""Train a LoRA adapter on a base model. The training loop is in `adapters.training.loop`; `server.jobs`
imports this package.
"""
