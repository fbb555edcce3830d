"""`lightning-rm sample`: k responses of a policy to each prompt of a data set, written as JSONL as they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.annotation.voters import Voter, check_voters
from lightning_rm.commands._config import plain_console, require_all, say_files, template_arguments
from lightning_rm.commands._data import find_source, find_voters
from lightning_rm.commands._entry import command
from lightning_rm.commands._places import whole_path
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.commands._tables import report_table
from lightning_rm.counts import tightest
from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.pairs import load_tokenizer
from lightning_rm.digests import check_unchanged, fingerprint
from lightning_rm.drafts import check_place
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.rlhf.lines import GrowingLines
from lightning_rm.rlhf.policy import load_policy, policy_config, policy_version
from lightning_rm.rlhf.prompts import Prompt, distinct_prompts
from lightning_rm.rlhf.sampling import Sampled, check_options, room_for_prompt, sample_responses
from lightning_rm.scoring.conversations import score

SETTINGS = ("policy", "dtype", "set", "num_prompts", "k", "temperature", "top_p", "max_new_tokens", "seed")
"""Keys of the configuration that the responses depend on, beside prompts, template arguments and what folders hold."""


def sample(cfg: DictConfig) -> Path:
    """Sample responses.

    Args:
        cfg: `conf/sample.yaml`, composed.

    Returns:
        The file written.
    """
    require_all(cfg)
    check_options(cfg.k, cfg.temperature, cfg.top_p, cfg.max_new_tokens, cfg.batch_prompts)
    out = Path(cfg.out)
    if out.suffix != ".jsonl":
        raise ValueError(f"out={cfg.out!r}: responses are written as JSONL; give a name that ends in .jsonl")
    check_place(out)
    config = policy_config(cfg.policy, trust_remote_code=cfg.trust_remote_code)
    tokenizer = load_tokenizer(cfg.policy, chat_template=cfg.chat_template, trust_remote_code=cfg.trust_remote_code)
    voters = find_voters(cfg.voters, cfg.weights) if cfg.voters else []
    if voters:
        check_voters(voters)
    prompts, report = distinct_prompts(
        find_source(cfg),
        tokenizer,
        num_prompts=cfg.num_prompts,
        max_prompt_tokens=tightest(cfg.max_prompt_tokens, room_for_prompt(config, cfg.max_new_tokens)),
        on_bad_row=cfg.data.on_bad_row,
        chat_template_kwargs=template_arguments(cfg),
    )
    if voters and (own := next((prompt.id for prompt in prompts if prompt.chat_template_kwargs), None)):
        raise ValueError(
            f"voters={cfg.voters!r}: pair {own} has chat_template_kwargs, which voters are not told; ask none, or hide "
            "that field with data.columns={chat_template_kwargs: null}"
        )
    console = plain_console()
    console.print(report_table({"prompts": report}))
    lines = GrowingLines(out, _settings(cfg, tokenizer, prompts, voters))
    num_done = lines.open(len(prompts), cfg.batch_prompts, overwrite=cfg.overwrite)
    if num_done == len(prompts):
        console.print(f"{out} is finished: every prompt has its responses", soft_wrap=True)
    else:
        with resumable("written"):
            _write(cfg, lines, prompts, num_done, tokenizer, voters, console)
    console.print(summary(lines))
    say_files(console, out)
    return out


def summary(lines: GrowingLines) -> str:
    """Return what to say of a file of responses."""
    num_groups, num_responses, num_alike, num_cut, num_empty = 0, 0, 0, 0, 0
    for row in lines.rows():
        num_groups += 1
        num_responses += len(row["responses"])
        num_alike += len(set(row["responses"])) < 2
        num_cut += row["finished"].count(False)
        num_empty += row["responses"].count("")
    return (
        f"{num_groups:,} groups of responses, {num_alike:,} with fewer than two different ones; of {num_responses:,} "
        f"responses {num_cut:,} were cut off at max_new_tokens, {num_empty:,} are empty"
    )


def _settings(
    cfg: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    voters: Sequence[Voter],
) -> dict[str, Any]:
    """Return all that a file of responses depends on. Not the batches: they change no more than a rounding does."""
    return {name: cfg[name] for name in SETTINGS} | {
        "policy": whole_path(cfg.policy),
        "chat_template_kwargs": template_arguments(cfg),
        "policy_version": policy_version(cfg.policy),
        "chat_template": fingerprint(template=tokenizer.chat_template)[:16],
        "prompts": fingerprint(prompts=[asdict(prompt) for prompt in prompts])[:16],
        "voters": {whole_path(voter.name): voter.digest for voter in voters},
    }


def _write(
    cfg: DictConfig,
    lines: GrowingLines,
    prompts: Sequence[Prompt],
    num_done: int,
    tokenizer: PreTrainedTokenizerBase,
    voters: Sequence[Voter],
    console: Console,
) -> None:
    """Sample, have voters score, and append, a batch of prompts at a time."""
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=1)
    policy = load_policy(cfg.policy, dtype=cfg.dtype, trust_remote_code=cfg.trust_remote_code)
    check_unchanged("policy", policy_version(cfg.policy), lines.settings["policy_version"], "in use")
    fabric.to_device(cast(nn.Module, policy))
    voter_tokenizer = voters[0].tokenizer() if voters else tokenizer
    models = [voter.load(voter_tokenizer) for voter in voters]
    for model in models:
        fabric.to_device(model)
    left, for_all = prompts[num_done:], template_arguments(cfg)
    batches = sample_responses(
        policy,
        tokenizer,
        [prompt.messages for prompt in left],
        cfg.k,
        temperature=cfg.temperature,
        top_p=cfg.top_p,
        max_new_tokens=cfg.max_new_tokens,
        batch_prompts=cfg.batch_prompts,
        seed=cfg.seed,
        chat_template_kwargs=[{**for_all, **prompt.chat_template_kwargs} for prompt in left],
    )
    with Bar(console) as bar:
        task = bar.add_task("prompts", total=len(prompts), completed=num_done)
        for batch in batches:
            asked = [prompts[num_done + place] for place in range(len(batch))]
            rows = [_row(prompt, said) for prompt, said in zip(asked, batch, strict=True)]
            if models:
                for row, votes in zip(rows, _votes(models, voter_tokenizer, asked, batch), strict=True):
                    row["votes"] = votes
            lines.append(rows)
            num_done += len(batch)
            bar.update(task, completed=num_done)


def _row(prompt: Prompt, said: Sampled) -> dict[str, Any]:
    own = {"chat_template_kwargs": prompt.chat_template_kwargs} if prompt.chat_template_kwargs else {}
    return {
        "prompt": prompt.messages,
        "responses": said.responses,
        "id": prompt.id,
        "prompt_id": prompt.prompt_id,
        "finished": said.finished,
        **own,
    }


def _votes(
    models: Sequence[AnyRewardModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    batch: Sequence[Sampled],
) -> list[list[list[float]]]:
    """Return [k][M] for each prompt: the rewards of its k responses, M in all, and a model with members gives several.

    Cross-fitted voters vote on every prompt: what a policy says is new to all of them.
    """
    conversations: list[list[Message]] = [
        [*prompt.messages, {"role": "assistant", "content": response}]
        for prompt, said in zip(prompts, batch, strict=True)
        for response in said.responses
    ]
    try:
        votes = [score(model, tokenizer, conversations).reshape(len(conversations), -1) for model in models]
    except ValueError as error:
        raise ValueError(
            f"a voter cannot read a response: {error}; set max_prompt_tokens= or max_new_tokens= lower, to another out="
        ) from error
    rewards = torch.cat(votes, dim=1)
    if not rewards.isfinite().all():
        raise ValueError("a voter gives rewards that are not finite; has its training diverged?")
    return rewards.view(len(prompts), -1, rewards.shape[1]).tolist()


@command("sample", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    sample(cfg)


if __name__ == "__main__":
    main()
