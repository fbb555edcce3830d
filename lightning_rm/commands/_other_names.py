"""What other trainers call a key, for those who type it here."""

from __future__ import annotations

OTHER_NAMES = {
    # TRL's, which docs/coming_from.md has in a table
    "activation_offloading": "backbone.model.offload_activations",
    "bf16": "trainer.precision",
    "center_rewards_coefficient": "module.centering",
    "chat_template_path": "backbone.chat_template",
    "dataloader_num_workers": "data.num_workers",
    "dataset_num_proc": "data.prepare_processes",
    "deepspeed": "trainer",
    "disable_dropout": "backbone.model.dropout",
    "eval_dataset": "data.val_file",
    "eval_steps": "trainer.val_check_interval",
    "eval_strategy": "trainer.val_check_interval",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "gradient_checkpointing": "backbone.model.gradient_checkpointing",
    "greater_is_better": "mode",
    "learning_rate": "optimizer.lr",
    "logging_steps": "trainer.log_every_n_steps",
    "lr_scheduler_type": "scheduler",
    "max_grad_norm": "trainer.gradient_clip_val",
    "max_length": "data.max_tokens",
    "metric_for_best_model": "monitor",
    "model": "backbone.path",
    "num_train_epochs": "trainer.max_epochs",
    "optim": "optimizer",
    "output_dir": "hydra.run.dir",
    "peft_config": "peft",
    "per_device_eval_batch_size": "data.eval_batch_pairs",
    "per_device_train_batch_size": "data.batch_pairs",
    "report_to": "logger",
    "resume_from_checkpoint": "resume",
    "run_name": "name",
    "save_steps": "checkpoint.every_n_train_steps",
    "save_strategy": "checkpoint.every_n_train_steps",
    "torch_compile": "backbone.model.compile",
    "train_dataset": "data.file",
    "use_liger_kernel": "backbone.model.liger",
    "warmup_steps": "scheduler.warmup",
    # of its command and of others; a name with dots is of that section alone
    "activation_checkpointing": "backbone.model.gradient_checkpointing",
    "batch_size": "data.batch_pairs",
    "checkpoint_dir": "hydra.run.dir",
    "chosen_key": "data.columns",
    "cpu_offload": "trainer",
    "cutoff_len": "data.max_tokens",
    "dataset": "data.file",
    "dataset_name": "data.name",
    "dataset_probs": "data.weights",
    "disable_gradient_checkpointing": "backbone.model.gradient_checkpointing",
    "ds.lora.alpha": "backbone.model.lora.alpha",
    "ds.lora.rank": "backbone.model.lora.rank",
    "epochs": "trainer.max_epochs",
    "eval.dataset": "data.val_file",
    "eval.steps": "trainer.val_check_interval",
    "finetuning_type": "peft",
    "gpus_per_node": "trainer.devices",
    "gradient_checkpointing_enable": "backbone.model.gradient_checkpointing",
    "higher_is_better": "mode",
    "interleave_probs": "data.weights",
    "load_best_model_at_end": "monitor",
    "load_enable": "resume",
    "lora_alpha": "backbone.model.lora.alpha",
    "lora_r": "backbone.model.lora.rank",
    "lora_rank": "backbone.model.lora.rank",
    "lora_target": "peft",
    "lora_target_modules": "peft",
    "lr": "optimizer.lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_ratio": "scheduler.warmup",
    "margin_loss_enable": "module.margin_scale",
    "max_len": "data.max_tokens",
    "max_norm": "trainer.gradient_clip_val",
    "max_num_epochs": "trainer.max_epochs",
    "max_num_steps": "trainer.max_steps",
    "max_samples": "resample.share",
    "max_seq_length": "data.max_tokens",
    "max_total_sequence_length": "data.max_tokens",
    "metric_name": "monitor",
    "micro_batch_size": "data.batch_pairs",
    "micro_train_batch_size": "data.batch_pairs",
    "model_name": "backbone.path",
    "model_name_or_path": "backbone.path",
    "model_path": "backbone.path",
    "n_gpus_per_node": "trainer.devices",
    "nnodes": "trainer.num_nodes",
    "num_gpus": "trainer.devices",
    "packing": "layout",
    "packing_samples": "layout",
    "padding_free": "layout",
    "param_dtype": "trainer.precision",
    "preprocessing_num_workers": "data.prepare_processes",
    "pretrain": "backbone.path",
    "prompt_key": "data.columns",
    "quantization_bit": "backbone.model.load_in_4bit",
    "rejected_key": "data.columns",
    "save_period": "checkpoint.every_n_train_steps",
    "stage": "module",
    "train.batch_size": "data.step_pairs",
    "train.data_path": "data.file",
    "train_batch_size": "data.step_pairs",
    "train_global_batch_size": "data.step_pairs",
    "train_micro_batch_size": "data.batch_pairs",
    "use_peft": "peft",
    "val_period": "trainer.val_check_interval",
    "val_size": "data.val_fraction",
    "validation.data_path": "data.val_file",
    "warmup_ratio": "scheduler.warmup",
    "zero_stage": "trainer",
}
"""What other trainers call a key -> what it is here; `name_here` looks in it."""

ALSO = {
    "data": ("in",),
    "file": ("in",),
    "input": ("in",),
    "model": ("run", "policy"),
    "output": ("out",),
    "output_dir": ("out",),
    "reward_model": ("model",),
}
"""What those who know one command call a key of another -> what it is there."""

NAMED_BY = {"data": "data.file", "backbone": "backbone.path"}
"""Groups that are set to a file or folder by mistake -> the key that takes it."""

OF_CHOICES = {
    "backbone.path": "backbone=hub backbone.path=NAME_OR_FOLDER",
    "backbone.model.lora.alpha": "backbone=hub_lora backbone.model.lora.alpha=NUMBER",
    "backbone.model.lora.rank": "backbone=hub_lora backbone.model.lora.rank=NUMBER",
    "data.columns": "data=jsonl 'data.columns={chosen: NAME}'",
    "data.file": "data=jsonl data.file=FILE",
    "data.name": "data=hub data.name=NAME",
    "data.val_file": "data=jsonl data.val_file=FILE",
    "resample.share": "resample=share resample.share=SHARE",
}
"""Keys of `OTHER_NAMES` that only some choices of their group have -> the words that make them."""


def name_here(key: str) -> str:
    """Return what another trainer's key is here, by its last sections or its last name; empty where nobody says so.

    cluster.gpus_per_node -> trainer.devices    train.batch_size -> data.step_pairs    batch_size -> data.batch_pairs
    """
    parts = key.split(".")
    ends = (".".join(parts[place:]) for place in range(len(parts)))
    return next((OTHER_NAMES[end] for end in ends if end in OTHER_NAMES), "")
