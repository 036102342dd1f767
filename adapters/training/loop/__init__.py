"""The training loop, and the code that every training run shares. `finetune`, `pretrain` and `mini` import
this package.
"""
