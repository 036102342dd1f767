"""One request: who answers it, generation and embeddings, without HTTP; `api` and above import it."""
