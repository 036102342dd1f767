"""One module for each architecture: its config, decoder and weight names, without its LoRA targets; `model`
and `launch` import it."""
