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
    # of its command and of others
    "batch_size": "data.batch_pairs",
    "cutoff_len": "data.max_tokens",
    "dataset": "data.file",
    "dataset_name": "data.name",
    "dataset_probs": "data.weights",
    "epochs": "trainer.max_epochs",
    "interleave_probs": "data.weights",
    "load_best_model_at_end": "monitor",
    "lora_alpha": "backbone.model.lora.alpha",
    "lora_r": "backbone.model.lora.rank",
    "lora_rank": "backbone.model.lora.rank",
    "lora_target_modules": "peft",
    "lr": "optimizer.lr",
    "max_len": "data.max_tokens",
    "max_samples": "resample.share",
    "max_seq_length": "data.max_tokens",
    "micro_batch_size": "data.batch_pairs",
    "micro_train_batch_size": "data.batch_pairs",
    "model_name_or_path": "backbone.path",
    "model_path": "backbone.path",
    "n_gpus_per_node": "trainer.devices",
    "nnodes": "trainer.num_nodes",
    "pretrain": "backbone.path",
    "train_batch_size": "data.step_pairs",
    "train_global_batch_size": "data.step_pairs",
    "use_peft": "peft",
    "warmup_ratio": "scheduler.warmup",
    "zero_stage": "trainer",
}
"""What other trainers call a key -> what it is here."""

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
    "data.file": "data=jsonl data.file=FILE",
    "data.name": "data=hub data.name=NAME",
    "data.val_file": "data=jsonl data.val_file=FILE",
    "resample.share": "resample=share resample.share=SHARE",
}
"""Keys of `OTHER_NAMES` that only some choices of their group have -> the words that make them."""
