"""The training loop and what every run needs, without a task of its own; `finetune`, `pretrain` and `mini`
import it.
"""
