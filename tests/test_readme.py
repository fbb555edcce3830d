"""The README's python runs as it stands, its commands compose, and its two commands are those that CI runs.

The commands of every page in docs/ and those in comments of conf/ compose too.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_rm import BaselineRM, ContrastiveRM, PreferenceDataModule, SyntheticGroups, score
from lightning_rm.analysis.paired import paired_difference
from lightning_rm.batch import PreferenceBatch, RewardOutput, preference_batch
from lightning_rm.commands._choices import compose_choices
from lightning_rm.commands._config import resolved
from lightning_rm.commands._keys import check_keys
from lightning_rm.commands._targets import ALLOWED, check_targets, take_word
from lightning_rm.commands._words import parse, sort_words
from lightning_rm.commands.main import verbs
from lightning_rm.data.formats.pairs import parse_row
from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.losses import ranking_loss
from lightning_rm.metrics.groups import group_metric_names
from lightning_rm.metrics.pairs import metric_names
from lightning_rm.metrics.scores import score_metric_names
from lightning_rm.metrics.text import text_metric_names
from tests.commands.test_conf import composed
from tests.toy import toy_data, toy_model, toy_trainer, write_jsonl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
DOCS = [
    block
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if "_build" not in page.parts and page.name != "config.md"
    for block in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL)
]
TUTORIALS = [page for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")) if "```python" in page.read_text()]
COMMANDS = list(
    dict.fromkeys(
        line
        for language, block in (*BLOCKS, *DOCS)
        if language == "bash"
        for line in block.replace("\\\n", " ").splitlines()
        if re.search(r"train\.py|lightning-rm|lightning_rm\.commands", line)
    )
)
CONF_COMMANDS = sorted(
    {
        line.replace(" ...", "")  # what another line has said
        for path in (ROOT / "conf").rglob("*.yaml")
        for line in re.findall(
            r"^# *(lightning-rm .*?)(?: # .*)?$", re.sub(r" \\\n# +", " ", path.read_text()), flags=re.MULTILINE
        )
    }
)


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def of_seeds(values: Sequence[float]) -> str:
    """`.854 ± .007`: the mean of runs and their sample standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}".replace("0.", ".")


def paired(values: Mapping[str, float], baseline: Mapping[str, float], digits: int = 3) -> str:
    """`+.030 [+.020, +.040]`: the mean difference of runs of one world or seed, and its 95 % interval."""
    found = paired_difference(values, baseline)
    assert found is not None
    mean, low, high = (f"{value:+.{digits}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]".replace("0.", ".")


def test_the_readmes_figures_are_those_that_were_measured() -> None:
    [table] = re.findall(r"## What came out\n\n(.*?)\n\n", README, flags=re.DOTALL)
    world, contrast, shift, rounds, grpo, ukp, hh, _, speed = (line for line in table.replace("*", "").splitlines()[2:])
    recipes = results("strength_synthetic")["recipes"]
    plain, flip = ({seed: run["test"] for seed, run in recipes[name].items()} for name in ("baseline", "flip"))
    assert f"| {of_seeds([*plain.values()])} | {of_seeds([*flip.values()])} by `experiment=flip` |" in world
    assert paired(flip, plain) in world

    measured = results("ukp_convarg")["results"]["test"]
    assert f"| {of_seeds(measured['accuracy']['seeds'])} |" in ukp
    assert f"length alone has {measured['length_accuracy']['mean']:.3f}".replace("0.", ".") in ukp

    runs = results("hh_rlhf_recipes_512")["runs"]
    plain, soft = (
        {seed: run["human"]["accuracy"] for seed, run in runs[name].items()}
        for name in ("baseline", "soft_label_margin")
    )
    assert f"| {of_seeds([*plain.values()])} | {of_seeds([*soft.values()])} by `soft_label_margin` |" in hh
    assert paired(soft, plain) in hh
    length = results("hh_rlhf_minilm_512")["results"]["test/human"]["length_accuracy"]["mean"]
    assert f"length alone has {length:.3f}".replace("0.", ".") in hh

    rows = results("shift")["runs"]
    orders = [rows[name] for name in ("baseline", "voter_2", "voter_3", "voter_4", "voter_5")]
    measures: list[Callable[[dict[str, Any]], float]] = [
        lambda row: row["policy_64"]["gold_correlation"],
        lambda row: row["gold"]["64"],
    ]
    for measure in measures:
        plain = {world: float(np.mean([measure(runs[world]) for runs in orders])) for world in orders[-1]}
        for line, name in ((contrast, "simcse"), (shift, "simcse_flip_fresh")):
            mended = {world: measure(row) for world, row in rows[name].items()}
            assert paired(mended, plain) in line
            if measure is measures[0]:
                before, after = (f"{np.mean([*values.values()]):.3f}".replace("0.", ".") for values in (plain, mended))
                assert f"| {before} | {after} by" in line.replace("*", "")

    for line, name in ((rounds, "rounds"), (grpo, "rounds_grpo")):
        gold = {
            (method, number): {
                world: run["rounds"][number]["gold"] for world, run in results(name)["runs"][method].items()
            }
            for method in ("baseline", "simcse")
            for number in ("0", "4")
        }
        for later, earlier in (("baseline", "baseline"), ("simcse", "simcse"), ("simcse", "baseline")):
            number = "0" if later == earlier else "4"
            assert paired(gold[later, "4"], gold[earlier, number], 2) in line

    contenders = results("throughput")["smollm2_135m_hh_multi_turn"]["contenders"]
    shipped, by_hand, ours = (
        contenders[name]["cpu"] for name in ("trl_shipped", "trl_sorted", "compiled")
    )  # quartiles: the median is the second
    rates = [f"{one['pairs_a_second'][1]:.3f}".removeprefix("0") for one in (shipped, by_hand, ours)]
    assert f"TRL {rates[0]}, sorted by hand {rates[1]} | {rates[2]} |" in speed
    assert f"{ours['to_trl_shipped'][1]:.1f} and {ours['to_trl_sorted'][1]:.1f} times" in speed


def overrides(command: str) -> tuple[str, list[str]]:
    """The verb of a command line and its key=value words, wherever it is wrapped in a launcher."""
    words = [
        inner
        for word in shlex.split(command.split("&&")[-1].removesuffix("&"))
        for inner in (shlex.split(word) if "lightning-rm " in word else [word])
    ]
    for place, word in enumerate(words):
        if word.endswith(("train.py", "lightning_rm.commands.train")):
            return "train", [word for word in words[place + 1 :] if word != "-m"]
        if word == "lightning-rm":
            return words[place + 1], [word for word in words[place + 2 :] if word != "-m"]
    raise AssertionError(command)


def first_of_sweeps(words: list[str]) -> list[str]:
    """Overrides with the first value of a sweep in place of its list."""
    return [
        f"{word.get_key_element()}={next(iter(word.sweep_string_iterator()))}" if word.is_sweep_override() else line
        for line, word in zip(words, OverridesParser.create().parse_overrides(words), strict=True)
    ]


def test_ci_runs_the_readmes_two_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ("pip install -e . && python train.py", 'pip install -e ".[test]" && pytest'):
        assert f"```bash\n{command}\n```" in README
        assert f"readme '{command}'" in ci


def test_the_choices_are_those_of_conf() -> None:
    """Every group with every choice, but for what other choices are made of."""
    written = dict(re.findall(r"^\| `(\w+)=` \| (.*) \|$", README, flags=re.MULTILINE))
    parts = {("data", "base"), ("data", "synthetic_sets"), ("trainer", "base"), ("backbone", "lora")}
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        if (path.parent.name, path.stem) not in parts:
            found.setdefault(path.parent.name, []).append(path.stem)
    assert {group: names.split(", ") for group, names in written.items()} == found


def test_scripts_for_a_cluster_are_of_the_shell() -> None:
    """Multi-node by srun, by torchrun, and on a Ray cluster; each is put back into its queue when it is told to end."""
    scripts = [block for language, block in DOCS if language == "bash" and block.startswith("#!")]
    assert len(scripts) == 3
    for script in scripts:
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert re.search(r"^#SBATCH .*--requeue .*--signal=(B:)?USR1@120$", script, flags=re.MULTILINE)


def test_conf_names_its_commands() -> None:
    assert len(CONF_COMMANDS) > 40


OWN = [command for command in COMMANDS if "--config-dir" in command]
"""Commands that read a yaml which the page has beside them."""


def test_a_reward_model_of_ones_own_trains_and_the_command_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is the naive mean hinge: a flipped pair is turned round, a tie asks for nothing, a weight counts."""
    [code] = [block for language, block in DOCS if language == "python" and "class HingeRM" in block]
    [file] = [block for language, block in DOCS if language == "yaml" and "HingeRM" in block]
    [command] = [command for command in OWN if "module=hinge" in command]
    monkeypatch.chdir(tmp_path)
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    write_jsonl(tmp_path / "pairs.jsonl", SyntheticSource(40, split="train"))
    quiet = "enable_progress_bar=False, enable_model_summary=False, logger=False, accelerator='cpu'"
    code = code.replace("max_epochs=1", f"max_epochs=1, {quiet}").replace("Qwen/Qwen3-0.6B", "model")
    exec(compile(code, "training.md", "exec"), names := {})
    tokens = names["data"].train_dataloader().__iter__().__next__().tokens
    num_pairs = tokens.reward_index.shape[1]
    label = torch.tensor([1.0, 0.0, 0.5] * num_pairs)[:num_pairs]
    weight = torch.arange(1.0, num_pairs + 1)
    batch = preference_batch(tokens, label=label, weight=weight)
    output = RewardOutput(torch.randn(2, num_pairs), torch.zeros(2, num_pairs, 1))
    signs = (2 * label - 1).tolist()
    naive = [
        w * max(0.0, 1 - sign * (c - r))
        for w, sign, c, r in zip(weight.tolist(), signs, output.chosen.tolist(), output.rejected.tolist(), strict=True)
    ]
    found = names["module"].losses(batch, output)
    assert found["loss"].item() == pytest.approx(sum(naive) / num_pairs, rel=1e-6)

    (tmp_path / "settings" / "module").mkdir(parents=True)
    (tmp_path / "settings" / "module" / "hinge.yaml").write_text(file)
    (tmp_path / "own_rewards.py").write_text(code.partition("\ntokenizer = ")[0])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.setenv(ALLOWED, "0")
    given = sort_words(shlex.split(command)[2:])
    words = take_word(given.own)
    check_keys("train", words, given.folder)
    values = compose_choices("train", parse(words), given.folder).values
    module = OmegaConf.create({"_target_": values["module._target_"]})
    check_targets(module)
    assert instantiate({**module, "_partial_": True}).func.__name__ == "HingeRM"
    monkeypatch.delitem(sys.modules, "own_rewards")


def test_a_loop_of_ones_own_trains_on_every_pair_in_another_order_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [block for language, block in DOCS if language == "python" and "set_epoch(epoch)" in block]
    read: list[int] = []

    def to(batch: PreferenceBatch, device: str) -> PreferenceBatch:
        read.extend(batch.row.tolist())
        return batch

    monkeypatch.setattr(PreferenceBatch, "to", to)
    model, data = toy_model(), toy_data(8, cache_dir=tmp_path)
    before = [parameter.clone() for parameter in model.head_parameters()]
    exec(compile(code, "training.md", "exec"), {"torch": torch, "model": model, "data": data})
    assert sorted(read[:8]) == sorted(read[8:]) == list(range(8))
    assert read[:8] != read[8:]
    assert not any(map(torch.equal, before, model.head_parameters()))


def test_fabric_takes_the_loop(tmp_path: Path) -> None:
    """To the weights of the plain one."""
    [code] = [block for language, block in DOCS if language == "python" and "fabric.setup_optimizers" in block]
    model, plain, data = toy_model(), toy_model(), toy_data(8, cache_dir=tmp_path)
    data.setup("fit")
    code = code.replace('"bf16-mixed"', '"32-true", accelerator="cpu"')
    exec(
        compile(code, "training.md", "exec"),
        {"torch": torch, "model": model, "data": data, "ranking_loss": ranking_loss},
    )
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-5)
    for batch in data.train_dataloader():
        output = plain(batch.tokens)
        ranking_loss(output.chosen, output.rejected, batch.label, batch.margin, batch.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    untrained = toy_model().state_dict()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, untrained[name]) for name, value in model.state_dict().items())


def test_parts_of_ones_own_train_as_the_page_says(tmp_path: Path) -> None:
    [code] = [block for language, block in DOCS if language == "python" and "class Close(Contrast)" in block]
    exec(compile(code, "training.md", "exec"), names := {"partial": partial})
    data = PreferenceDataModule(
        world_tokenizer(),
        names["rows"],
        val=list(names["Table"]()),
        treatments=[names["halve_doubtful"]],
        batch_pairs=4,
        cache_dir=tmp_path,
    )
    adamw: Any = partial(torch.optim.AdamW, lr=1e-3)
    close = ContrastiveRM(toy_model(), adamw, names["Close"], names["plateau"], dropout_at="features")
    (trainer := toy_trainer(tmp_path)).fit(close, data)
    assert trainer.lr_scheduler_configs[0].monitor == "val/accuracy"
    pairs = data.train_pairs()
    assert pairs is not None
    assert pairs.targets().weight.tolist() == [0.5] * 4 + [1.0] * 4
    for batch in data.train_dataloader():
        assert [pairs.ids()[row] for row in batch.row] == [pairs.place(row).id for row in batch.row.tolist()]
        assert batch.strength.tolist() == [row / 8 for row in batch.row.tolist()]
    responses = {"responses": SyntheticGroups(8, split="train"), "batch_groups": 2}
    spread = names["SpreadRM"](toy_model(), adamw, names["halved"], ascent_lr=0.1)
    toy_trainer(tmp_path, log_every_n_steps=1).fit(spread, toy_data(8, **responses))
    assert spread.climb.seen["difference_loss_after"] > spread.climb.seen["difference_loss"]


@pytest.mark.parametrize("command", [command for command in OWN if "experiment=mine" in command])
def test_an_experiment_of_ones_own_is_what_its_page_says(command: str, tmp_path: Path) -> None:
    [file] = [block for language, block in DOCS if language == "yaml" and block.startswith("# @package _global_")]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(file)
    words = sort_words(shlex.split(command.partition(" #")[0].replace("settings", str(tmp_path)))[2:])
    check_keys("train", words.own, words.folder)
    found = compose_choices("train", parse(words.own), words.folder).values
    assert str(found["module._target_"]).endswith("ContrastiveRM")
    set_there = {"name": "mine", "data.file": "pairs.jsonl", "module.beta": 0.1, "optimizer.lr": 1e-4}
    assert set_there.items() <= found.items()


@pytest.mark.parametrize("command", [one for one in (*COMMANDS, *CONF_COMMANDS) if one not in OWN])
def test_every_command_composes_and_measures_what_it_monitors(command: str) -> None:
    """And what training monitors is measured: it says no before it starts to a test metric where only validation is."""
    verb, words = overrides(command)
    assert verb in verbs()
    cfg = composed(*first_of_sweeps(words), "hydra.runtime.output_dir=run", "hydra.sweep.dir=runs", command=verb)
    assert resolved(cfg)
    if cfg.get("backbone") and cfg.backbone.get("path") in ("MINILM", "sentence-transformers/all-MiniLM-L6-v2"):
        assert cfg.data.max_tokens <= 512  # its positions: more is refused when the model is there
    if verb != "train":
        return
    data = cfg.data
    validated = data.val_fraction > 0 or (data.module.get("val") is not None and data.get("val_file", "its own"))
    tested = data.module.get("test") is not None and data.get("test_file", "its own")
    assert tested or not (validated and cfg.monitor.startswith("test/"))


def test_the_page_of_metrics_has_every_name() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    names = metric_names() | group_metric_names() | score_metric_names() | text_metric_names()
    assert len(names) > 25
    assert names <= set(re.findall(r"`(\w+)`", page))


def test_the_rows_of_every_form_are_one_pair() -> None:
    """The table of forms has one pair in twelve forms; each is read as the turns of the first."""
    page = (ROOT / "docs" / "howto" / "data.md").read_text()
    rows = [json.loads(row) for row in re.findall(r"^\| [^|]+ \| `(\{.*\})` \|$", page, flags=re.MULTILINE)]
    assert len(rows) == 12
    pairs = [parse_row(row, "data.md:1") for row in rows]
    said = [("user", "2+2?"), ("assistant", "4"), ("assistant", "5")]
    expected = tuple(({"role": role, "content": content},) for role, content in said)
    for pair in pairs:
        assert isinstance(pair, PairRow), pair
        assert (pair.prompt, pair.chosen, pair.rejected) == expected


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_python_of_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model where a run's folder is named, its blocks one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    toy_model().save_pretrained(tmp_path / "run" / "model" / "best", world_tokenizer())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(re.sub(r"runs/\w+/[-\w]+", "run", block), page.name, "exec"), names)
    assert "model" in names


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder on disk where the README names a hub model."""
    [code] = [block for language, block in BLOCKS if language == "python"]
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    write_jsonl(tmp_path / "pairs.jsonl", SyntheticSource(40, split="train"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code.replace("Qwen/Qwen3-0.6B", "model"), "README.md", "exec"), names)
    assert names["score"]


def test_loaders_of_ones_own_train_and_a_batch_of_another_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [block for language, block in DOCS if language == "python" and "class OwnPairs" in block]
    monkeypatch.chdir(tmp_path)
    texts = {name: [("red fruits apple cherry", "red fruits crab")] * 12 for name in ("train", "val")}
    names: dict[str, Any] = {"model": toy_model(), "tokenizer": world_tokenizer(), "texts": texts}
    code, num_given = re.subn(r"^(model|tokenizer|texts) = .*\n", "", code, flags=re.MULTILINE)
    assert num_given == len(names)
    quiet = "enable_progress_bar=False, enable_model_summary=False, logger=False, accelerator='cpu'"
    exec(compile(code.replace("max_epochs=1", f"max_epochs=1, {quiet}"), "data.md", "exec"), names)
    module = BaselineRM(names["model"], partial(torch.optim.AdamW, lr=1e-3))
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    [found] = trainer.validate(module, names["OwnPairs"](), verbose=False)
    assert (found["val/accuracy"], found["val/num_pairs"]) == (1.0, 12.0)
    loader: Any = torch.utils.data.DataLoader([{"input_ids_chosen": 1, "input_ids_rejected": 2}])  # pyright: ignore[reportArgumentType]
    for run in (trainer.validate, trainer.test, trainer.predict, trainer.fit):
        with pytest.raises(ValueError, match="a loader gives batches of the type dict; take those of Preference"):
            run(module, loader)


def test_thumbs_train_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says it, with a small model: what is always liked has the higher reward."""
    [code] = [block for language, block in DOCS if language == "python" and "GroupFile(" in block]
    monkeypatch.chdir(tmp_path)
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    thumbs = [
        {"prompt": f"red fruits {number}", "completion": "apple cherry" if liked else "crab", "label": liked}
        for number in range(40)
        for liked in (True, False)
    ]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs))
    names: dict[str, Any] = {}
    exec(compile(code.replace("Qwen/Qwen3-0.6B", "model").replace("lr=1e-5", "lr=1e-2"), "data.md", "exec"), names)
    trainer = L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(names["module"], names["data"])
    [found] = trainer.validate(names["module"], names["data"], verbose=False)
    assert found["val/score_rank_correlation"] > 0.8
    prompt, answers = [{"role": "user", "content": "red fruits 7"}], ("apple cherry", "crab")
    liked, other = score(
        names["model"],
        names["tokenizer"],
        [[*prompt, {"role": "assistant", "content": answer}] for answer in answers],
    ).tolist()
    assert liked > other
