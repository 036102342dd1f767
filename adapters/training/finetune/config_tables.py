"""Tables of the option names in the configuration files of TRL (with PEFT), axolotl and unsloth.

A name stands for an OneSeek option (`FOREIGN`), accepts only certain values (`FIXED`), or does not affect the
result and is skipped (`IDLE`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SECTIONS = ("data", "training", "lora", "logging", "inference")
"""Sections in unsloth's configuration files. Options inside them are read like top-level options."""

FOREIGN: Mapping[str, str] = {
    # TRL, transformers and PEFT
    "model_name_or_path": "base_model",
    "dataset_name": "dataset",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "max_seq_length": "max_length",
    "output_dir": "output",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules",
    # axolotl
    "base_model_config": "base_model",
    "micro_batch_size": "batch_size",
    "num_epochs": "epochs",
    "lr_scheduler": "schedule",
    "sequence_len": "max_length",
    "val_set_size": "held_out",
    "early_stopping_patience": "early_stop",
    # unsloth
    "model": "base_model",
    "model_name": "base_model",
    "random_seed": "seed",
    "random_state": "seed",
    "use_gradient_checkpointing": "gradient_checkpointing",
}
"""Maps option names of other trainers to the OneSeek options that take the same value."""

_PLAIN = "OneSeek trains plain LoRA adapters only"
_ANSWERS = "the loss is always computed on the answers only"
_PADDED = "OneSeek pads examples and never packs them"
_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw")
_PRECISION = "OneSeek trains in bf16 or fp32 only"
_WHOLE_FILE = "a data set is a file, which is read whole"
_OWN_TEMPLATE = "OneSeek always uses the base's own chat template, as when it serves the base"

FIXED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "use_peft": ((True,), "OneSeek trains LoRA adapters only"),
    "peft_type": (("LORA",), "OneSeek trains LoRA adapters only"),
    "training_type": (("lora", "qlora"), "OneSeek trains LoRA adapters only"),
    "task_type": (("CAUSAL_LM",), "OneSeek trains causal language models only"),
    "lora_task_type": (("CAUSAL_LM",), "OneSeek trains causal language models only"),
    "loss_type": (("nll",), "OneSeek trains with the cross-entropy loss only"),
    "label_smoothing_factor": ((0.0,), "OneSeek trains with the cross-entropy loss only"),
    "init_lora_weights": ((True,), "a run always starts from PEFT's default LoRA"),
    "inference_mode": ((False,), "training changes the LoRA's weights"),
    "rl": ((False,), "OneSeek learns from examples, not from preferences"),
    "bias": (("none",), "training never changes the base's own weights"),
    "lora_bias": (("none", False), "training never changes the base's own weights"),
    "use_rslora": ((False,), "the scale of a LoRA is always alpha / rank"),
    "peft_use_rslora": ((False,), "the scale of a LoRA is always alpha / rank"),
    "use_dora": ((False,), _PLAIN),
    "peft_use_dora": ((False,), _PLAIN),
    "use_loftq": ((False,), _PLAIN),
    "use_qalora": ((False,), _PLAIN),
    "relora": ((False,), _PLAIN),
    "gptq": ((False,), "use load_in_4bit for a base in 4 bits"),
    "load_in_8bit": ((False,), "use load_in_4bit for a base in 4 bits"),
    "bnb_4bit_quant_type": (("nf4",), "load_in_4bit always uses nf4"),
    "model_revision": (("main",), "the base is a folder; download the revision that you want"),
    "trust_remote_code": ((False,), "OneSeek never runs the code of a checkpoint"),
    "completion_only_loss": ((True,), _ANSWERS),
    "assistant_only_loss": ((True,), _ANSWERS),
    "train_on_completions": ((True,), _ANSWERS),
    "train_on_inputs": ((False,), _ANSWERS),
    "packing": ((False,), _PADDED),
    "sample_packing": ((False,), _PADDED),
    "padding_free": ((False,), _PADDED),
    "group_by_length": ((False,), "OneSeek always shuffles the examples"),
    "train_sampling_strategy": (("random",), "OneSeek always shuffles the examples"),
    "truncation_mode": (("keep_start",), "OneSeek leaves out examples that are longer than max_length"),
    "auto_find_batch_size": ((False,), "the option batch_size sets the size of a batch"),
    "use_cpu": ((False,), "OneSeek trains on a GPU if there is one"),
    "full_determinism": ((False,), "the option seed makes a run repeatable"),
    "dataset_train_split": (("train",), _WHOLE_FILE),
    "dataset_test_split": (("test",), "the option held_out sets the part that is held out"),
    "dataset_streaming": ((False,), _WHOLE_FILE),
    "optim": (_ADAMW, "OneSeek trains with AdamW only"),
    "optimizer": (_ADAMW, "OneSeek trains with AdamW only"),
    "adam_beta1": ((0.9,), "OneSeek uses the default of AdamW"),
    "adam_beta2": ((0.999,), "OneSeek uses the default of AdamW"),
    "adam_epsilon": ((1e-8,), "OneSeek uses the default of AdamW"),
    "max_steps": ((-1, 0), "the option epochs sets the length of a run"),
    "strict": ((False,), "OneSeek loads a base as its config.json says"),
    "fp16": ((False, "auto"), _PRECISION),
    "float16": ((False,), _PRECISION),
    "chat_template": (("tokenizer_default",), _OWN_TEMPLATE),
    "chat_template_path": ((), _OWN_TEMPLATE),
    "format_type": (
        ("auto", "alpaca", "chatml", "sharegpt"),
        "`oneseek data check` lists the supported data formats",
    ),
    "push_to_hub": ((False,), "OneSeek does not upload results"),
    "vision_all_linear": ((False,), "OneSeek trains text models only"),
    "finetune_language_layers": ((True,), "use target_modules to name the modules"),
    "finetune_attention_modules": ((True,), "use target_modules to name the modules"),
    "finetune_mlp_modules": ((True,), "use target_modules to name the modules"),
    "dataset_text_field": (
        (),
        "the text comes from fixed fields of an example, which `oneseek data check` lists",
    ),
    "lora_modules_to_save": ((), "training never changes the base's own weights"),
    "modules_to_save": ((), "training never changes the base's own weights"),
    "lora_model_dir": ((), "a run always starts from a new LoRA"),
    "resume_from_checkpoint": ((), "continue an interrupted run with --resume"),
    "deepspeed": ((), "use accelerate for several GPUs: docs/training.md"),
    "fsdp": ((), "use accelerate for several GPUs: docs/training.md"),
    "fsdp_config": ((), "use accelerate for several GPUs: docs/training.md"),
    "hub_model_id": ((), "OneSeek does not upload results"),
}
"""Maps option names of other trainers to the only values that OneSeek accepts for them, and the reason for an
error message.
"""

IDLE = re.compile(
    r"(?:wandb|mlflow|comet|trackio|swanlab|use_swanlab|tensorboard|logging|log|save|saves|eval|evals|hub|ddp"
    r"|dataloader|liger|flash|sdp|xformers|gptq|torch_compile|loss_watchdog|otel|use_otel|push_dataset)_\w+"
    r"|(?:enable|use)_(?:wandb|tensorboard|mlflow|swanlab)|lora_(?:mlp|qkv|o|embedding)_kernel"
    r"|attn_implementation|flash_attention|xformers_attention|sdp_attention|torch_compile|cut_cross_entropy"
    r"|dataset_prepared_path|dataset_processes|dataset_num_proc|skip_prepare_dataset|remove_unused_columns"
    r"|model_type|tokenizer_type|tokenizer_use_fast|tokenizer_legacy|processor_type|low_cpu_mem_usage"
    r"|report_to|run_name|local_rank|device_map|debug|do_train|do_eval|overwrite_output_dir|disable_tqdm"
    r"|per_device_eval_batch_size|gradient_checkpointing_kwargs|activation_offloading|lora_fan_in_fan_out"
    r"|finetune_vision_layers|temperature|top_p|top_k|min_p|torchdistx_path|use_kernels|load_best_model_at_end"
    r"|pad_to_sequence_len|tf32|metric_for_best_model|greater_is_better|auto_resume_from_checkpoints|log|seed_everything"
    r"|fan_in_fan_out|qalora_group_size|ensure_weight_tying|ignore_bias_buffers|megatron_core|packing_strategy"
    r"|pad_to_multiple_of|shuffle_dataset|length_column_name|preprocessing_num_workers|evaluation_strategy"
    r"|(?:bf16|fp16)_full_eval|prediction_loss_only|batch_eval_metrics|do_predict|use_liger_kernel|use_cache"
    r"|average_tokens_across_devices|include_num_input_tokens_seen|skip_memory_metrics|project|enable_jit_checkpoint"
    r"|ignore_data_skip|restore_callback_states_from_checkpoint|use_bnb_nested_quant"
)
"""Matches option names that do not affect the result of training: logging, checkpoints, kernels, and
properties that the base model itself defines.
"""

HARMLESS_PLUGINS = re.compile(r"axolotl\.integrations\.(?:liger|cut_cross_entropy|kernels|swanlab)\.\w+")
"""Matches axolotl plugins that change only the speed of a run, not its result."""
