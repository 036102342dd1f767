"""The training loop and what every run needs. `finetune`, `pretrain` and `mini` import this package."""
