"""One module per model family (GPT-2, Llama, Qwen): its config, decoder and weight names, without its LoRA
targets; the packages `model` and `launch` import it.
"""
