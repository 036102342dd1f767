"""Training conversations for the mini base model, about the few simple subjects that it knows: data files in
`data/`, and code that draws conversations from them. It holds no training code; `adapters.mini` imports it.
"""
