"""What in the settings of `lightning-rm rlhf` cannot work, for all stages, found before anything is sampled.

Numbers and places are checked whenever a run is started. Before its first round the trainings are gone through too, by
`lightning-rm train check=true` on a few made-up responses, and the judge is tried.
"""

from __future__ import annotations

import json
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import get_args

from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_rm.commands._data import find_policy
from lightning_rm.commands._places import with_whole_paths
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._round_setup import MODEL_SELECTIONS
from lightning_rm.commands._rounds import RoundStages
from lightning_rm.commands._trainings import check_rewards
from lightning_rm.counts import check_numbers, check_positive
from lightning_rm.data.rows import GroupRow, Message, PairRow
from lightning_rm.digests import fingerprint
from lightning_rm.drafts import write_text
from lightning_rm.models.backbone.settings import dtype_of
from lightning_rm.models.ensembles.aggregate import Aggregate
from lightning_rm.rlhf.endpoint_judge import EndpointJudge
from lightning_rm.rlhf.judges import Comparison, judged
from lightning_rm.rlhf.policy import policy_config
from lightning_rm.rlhf.prompts import Prompt, check_template_arguments
from lightning_rm.rlhf.rounds import Round, check_made, check_rounds
from lightning_rm.rlhf.row_files import write_groups, write_pairs
from lightning_rm.rlhf.sampling import check_options, room_for_prompt
from lightning_rm.rlhf.trl_training import check_options as check_trl_options
from lightning_rm.rlhf.trl_training import one_template
from lightning_rm.rlhf.weigh import check_weighing

CHECKED = "checked.json"
"""In the folder of a run: a digest of what has been gone through, which is not gone through again."""

NUM_MADE_UP = 4
"""Prompts that a training is checked on; the shortest ones, for any model can read these."""


def check_settings(stages: RoundStages) -> None:
    """Say which setting alone, or beside another one, cannot work.

    Raises:
        ValueError: for the first one.
    """
    cfg, setup = stages.cfg, stages.setup
    check_rounds(cfg.rounds, cfg.patience)
    check_options(cfg.k, cfg.temperature, cfg.top_p, cfg.max_new_tokens, cfg.batch_prompts)
    if cfg.k < 2:
        raise ValueError(f"k={cfg.k}: one response to a prompt leaves nothing to choose among; give 2 or more")
    for name in ("num_prompts", "max_prompt_tokens", "num_eval_prompts", "eval_k", "num_models"):
        if cfg[name] is not None and cfg[name] < 1:
            raise ValueError(f"{name}={cfg[name]}; give 1 or more")
    check_positive(eval_temperature=cfg.eval_temperature)
    for name, known in (("policy_from", ("last", "start")), ("weights", MODEL_SELECTIONS)):
        if cfg[name] not in known:
            raise ValueError(f"{name}={cfg[name]!r}; give {' or '.join(known)}")
    room_for_prompt(policy_config(cfg.policy), cfg.max_new_tokens)
    dtype_of(cfg.dtype)
    check_template_arguments(setup.tokenizer, setup.template_arguments())
    stages.policy.shaping()
    if cfg.combine not in (known := (*get_args(Aggregate), "warm")):
        raise ValueError(f"combine={cfg.combine!r}; give one of {', '.join(known)}")
    check_numbers(0, lam=cfg.lam)
    _check_models(stages)
    if stages.policy.chooses:
        instantiate(cfg.policy_optimizer.choose)
    else:
        check_trl_options(setup.optimizer["trainer"], stages.policy.trl_options())
    _check_pairs(stages)


def check_all(stages: RoundStages) -> None:
    """Try the judge and go through the trainings, unless that was done with these settings.

    Raises:
        ValueError: for what cannot work; a training prints its own errors.
    """
    setup, first = stages.setup, Round(stages.setup.out, 1)
    words = stages.model.train_words(first)
    done = fingerprint(
        words=[*words, *with_whole_paths(setup.words)],
        pairs=setup.source("train").fingerprint(),
        judge=setup.judge.digest,
    )
    mark = setup.out / CHECKED
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == done:
        return
    if not stages.cfg.overwrite:
        check_made(setup.out, stages.all(), stages.cfg.rounds)
    if not stages.policy.chooses:
        one_template(setup.template_arguments(), setup.sampled_prompts)
    prompts = sorted(setup.eval_prompts, key=lambda prompt: len(json.dumps(prompt.messages)))[:NUM_MADE_UP]
    _try_judge(stages, prompts)
    with tempfile.TemporaryDirectory() as scratch:
        responses, chosen = Path(scratch) / "responses.jsonl", Path(scratch) / "chosen.jsonl"
        pairs = [_made_up(prompt) for prompt in prompts]
        write_groups(responses, [_group(pair) for pair in pairs])
        # As many as a round may choose: what is said of their number is of the round's.
        write_pairs(chosen, islice(cycle(pairs), len(setup.sampled_prompts)))
        end = ["check=true", "seed=0", f"hydra.run.dir={quoted(Path(scratch) / 'run')}"]
        setup.run(["train", *words, *stages.model.files(None, responses), "name=check", *end])
        if stages.policy.chooses:
            setup.run(["train", *stages.policy.distil_words(stages.cfg.policy, chosen), "name=check", *end])
    write_text(mark, done + "\n")


def _check_models(stages: RoundStages) -> None:
    """Check that the reward models of a round give rewards, and one for a response in the way that is asked for."""
    cfg = stages.cfg
    check_rewards(cfg, "improve a policy by")
    if cfg.num_models > 1 and cfg.members is not None:
        raise ValueError(
            f"num_models={cfg.num_models}: members of several backbones do not answer as one; leave members out, or "
            "set num_models=1, whose members are several already"
        )
    if cfg.num_models == 1 and cfg.combine == "warm":
        raise ValueError("combine=warm averages the weights of several models; set num_models=5, or leave it out")
    if cfg.num_models == 1 and cfg.members is None and cfg.combine != "mean":
        raise ValueError(
            f"combine={cfg.combine} is of several rewards, and one model gives one; set num_models=5 or members=heads"
        )


def _check_pairs(stages: RoundStages) -> None:
    """Check what is done to the pairs of the data before a reward model is trained on them."""
    cfg = stages.cfg
    if not 0 <= cfg.labels.share <= 1:
        raise ValueError(f"labels.share={cfg.labels.share}; it is a share of the prompts, from 0 to 1")
    for name, is_on, why in (
        ("labels.share", cfg.labels.share > 0, "labels join the pairs of a file"),
        ("weigh", bool(cfg.weigh), "weights are of the pairs of a file"),
    ):
        if is_on and ("file" not in cfg.data or "path" not in (cfg.data.module.get("train") or {})):
            raise ValueError(f"{name}: {why}; set data=jsonl data.file=FILE")
    if cfg.weigh:
        check_weighing(stages.model.weighing(), cfg.weighing.reference, find_policy(cfg))
        if cfg.weighing.reference is not None:
            policy_config(cfg.weighing.reference)
    elif cfg.labels.share > 0:
        if OmegaConf.is_dict(cfg.data.file):
            raise ValueError(
                "labels.share: labels join the files of one set, and data.file mixes several; set weigh=true, which "
                "writes the data's pairs as plain rows (weighing.power=0 weighs all alike)"
            )
        asked = [name for name in ("columns", "where") if cfg.data.get(name)]
        asked += ["format"] if cfg.data.get("format", "auto") != "auto" else []
        if asked:
            raise ValueError(
                f"labels.share: labels are plain rows, and data.{asked[0]} would be asked of them too; leave it out, "
                "or set weigh=true, which writes the data's pairs as plain rows (weighing.power=0 weighs all alike)"
            )


def _try_judge(stages: RoundStages, prompts: list[Prompt]) -> None:
    """Have the judge judge equal responses, which tells whether it can read these prompts, and whether it has gold."""
    judge = stages.setup.judge
    compared = [Comparison(prompt.messages, "yes", "yes", prompt.chat_template_kwargs) for prompt in prompts]
    judgements = judged(judge, compared)
    if stages.cfg.labels.share > 0 and stages.cfg.labels.annotator is not None and judgements[0].gold is None:
        raise ValueError("labels.annotator labels by gold, and this judge has none; set labels.annotator=null")
    if isinstance(judge, EndpointJudge):
        stages.setup.console.print(f"asking the judge at {judge.url} for one word", soft_wrap=True)
        judge.reach()


def _made_up(prompt: Prompt) -> PairRow:
    """Return a pair of made-up responses."""
    yes: Message = {"role": "assistant", "content": "yes"}
    no: Message = {"role": "assistant", "content": "no"}
    told = prompt.chat_template_kwargs
    return PairRow(prompt.messages, (yes,), (no,), prompt.id, prompt.prompt_id, chat_template_kwargs=told)


def _group(pair: PairRow) -> GroupRow:
    responses = (pair.chosen, pair.rejected)
    return GroupRow(pair.prompt, responses, pair.id, pair.prompt_id, chat_template_kwargs=pair.chat_template_kwargs)
