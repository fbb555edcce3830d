"""What is said before a command runs: keys that are none, help, completion; and what becomes of a sweep's jobs."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lightning_rm.callbacks import CheckpointFiles
from lightning_rm.commands import _entry
from lightning_rm.commands._completion import SCRIPTS, complete
from lightning_rm.commands._entry import arguments, command
from lightning_rm.commands._errors import in_words
from lightning_rm.commands._help import help_text, read_help
from lightning_rm.commands._keys import check_keys, with_mappings, without_choices
from lightning_rm.commands._quoting import quoted, quoted_where_needed, with_home
from lightning_rm.commands._resume import check_folder, is_requeued, with_folder, write_job
from lightning_rm.commands._stopped import Terminated
from lightning_rm.commands._sweep import SweepNoted
from lightning_rm.commands._words import check_single, check_text, is_multirun, parse, sort_words
from lightning_rm.commands.main import main, verbs
from tests.commands.conftest import Cli
from tests.commands.test_conf import CONF, composed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+lr=1e-3"], "there is no key lr; the nearest is optimizer.lr"),
        (["lr=1e-3"], "there is no key lr; the nearest is optimizer.lr"),
        (["+data.batch_size=8"], "there is no key data.batch_size; the nearest is data.batch_pairs"),
        (["+learning_rate=1"], "the nearest is optimizer.lr"),
        (["trainer.max_epoch=3"], "the nearest is trainer.max_epochs"),
        (["checkpoint={every: 3}"], "there is no key checkpoint.every; the nearest is checkpoint.every_n_train_steps"),
        (["+data.module.batch_size=3"], "the nearest is data.batch_pairs"),
        (["experiment=meta", "+ascent_lr=3"], "the nearest is module.ascent_lr"),
        (["-m", "+seeds=0,1"], "the nearest is seed"),
        (["+backbone.path=x"], "there is no key backbone.path here; backbone=hub and"),
        (["modul=meta"], "there is no key modul; the nearest is module"),
        (["+xyzzy=3"], "there is no key xyzzy; --help shows them all"),
        (["+trainer.max_tim=3"], "there is no key trainer.max_tim; the nearest is"),
        (["data=jsnl"], "data=jsnl: there is no such choice; the nearest is jsonl; there are base, best_of_n, disk"),
        (["treatment=[flip,flop]"], "treatment=flop: there is no such choice; the nearest is flip"),
        (["data=jsonl", "data.file=/a/b(1).jsonl"], "'data.file=\"/a/b(1).jsonl\"'"),
        (["data=jsonl", "data.file=a=b.jsonl"], "'data.file=\"a=b.jsonl\"'"),
        (["data=jsonl", "data.file=[a.jsonl, b(1).jsonl]"], '\'data.file=["a.jsonl","b(1).jsonl"]\''),
        (["+peft=lora"], "+peft=lora: peft has a choice already; write it without the +"),
        (["optimizer=null"], "optimizer=null: a group has a choice; there are adamw, "),
        (["~logger"], "~logger: a group has a choice; there are csv, none, "),
        (
            ["-m", "peft=null,lora"],
            "peft=null: a group has a choice; there are dora, ia3, lora, rslora, vera; in a sweep",
        ),
        (["nothing"], "'nothing' is not of the form key=value; keys stand without dashes"),
        (["model_name_or_path=x", "train_dataset=y"], "the nearest is backbone=hub backbone.path=NAME_OR_FOLDER"),
        (["backbone=hub", "backbone.trust_remote_code=no"], "backbone.trust_remote_code=no; give true or false"),
        (["trainer.max_time=00:01:00"], "no value that could be changed; +trainer.max_time=00:01:00 adds one"),
        (["check=true,off"], "check=off; give true or false"),
        (["optimizer.lr=nan"], "optimizer.lr=nan is not a number"),
        (["-m", "optimizer.lr=1e-5,NaN"], "optimizer.lr=nan is not a number"),
        (["backbone=hub", "backbone.path=null"], "backbone.path=null: it has to be given"),
        (
            ["members.num_members=3"],
            "there is no key members.num_members here; members=heads and members=lora have one",
        ),
        (["+callbacks.top_k.save_top_k=2"], "there is no key callbacks.top_k.save_top_k here; callbacks=top_k has one"),
        (["trainer.max_epochs=two"], "trainer.max_epochs=two; give a number"),
        (["eval_strategy=steps"], "the nearest is trainer.val_check_interval"),
        (["use_peft=true"], "the nearest is peft"),
        (["-m", "experiment=glob(zzz*)"], "experiment=glob(zzz*) fits no choice; there are baseline, "),
        (["trainer.strategy={a: 1}"], "there is no key trainer.strategy.a"),
        (["-m", "data.batch_pairs=2,1.5"], "data.batch_pairs=1.5; give a whole number"),
        (["backbone.model.config=3"], "backbone.model.config=3; give a mapping: backbone.model.config={NAME: VALUE}"),
    ],
)
def test_a_key_that_is_none_is_an_error_with_the_nearest_known_one(words: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_keys("train", [word for word in words if word != "-m"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["+trainer.max_time=00:01:00"],  # an argument of the callable
        ["data=jsonl", "+data.columns.label=p", "data.where={split: train}"],  # mappings that a user fills
        ["+backbone.model.config.attention_dropout=0.1"],
        ["+data.module.test.more._target_=x", "+data.module.test.more.path=3"],
        ["treatment=[flip]", "treatment.flip.below_quantile=0.2"],
        ["seed=0,1", "data=jsonl,synthetic", "data.batch_pairs=1,2", "data.num_pairs=3"],
        ["data=jsonl", "data.file=null", "data.columns=null"],
        ["~contrast", "hydra.run.dir=x", "hydra/job_logging=none", "experiment=meta", "module.ascent_lr=1"],
        ["+optimizer.betas=[0.9,0.95]"],
        ["backbone=hub_lora", "backbone.path=x", "backbone.model.lora.rank=4"],
        [
            "trainer.deterministic=warn",
            "check=True",
            "backbone=hub",
            "backbone.trust_remote_code=${check}",
            "seed=interval(0,3)",
        ],
        ["logger=wandb", "logger.loggers.wandb.log_model=all", "name=no"],
        ["experiment=glob(soft*)", "trainer.strategy={_target_: x.DDPStrategy, static_graph: true}"],
        ["+callbacks.timer={_target_: lightning.pytorch.callbacks.Timer, duration: '00:01:00:00'}"],
    ],
)
def test_a_key_that_somebody_reads_is_known(words: list[str]) -> None:
    check_keys("train", words)


def test_a_mapping_that_a_user_fills_is_open_where_an_experiment_has_filled_it() -> None:
    """Attributes are given whole, and replace the experiment's; columns are added to those that it names."""
    attributes = "module.attributes={helpfulness: 0.5, verbosity: -1}"
    check_keys("train", ["experiment=nemotron_regression", attributes])
    check_keys("train", ["experiment=inf_orm", "data.columns={label: p_chosen}"])
    whole = composed(*with_mappings(["experiment=nemotron_regression", "module.attributes={verbosity: -1}"]))
    assert dict(whole.module.attributes) == {"verbosity": -1}
    for experiment, before in (("inf_orm", {"strength_mean": "magnitude"}), ("nemotron", {})):
        added = composed(*with_mappings([f"experiment={experiment}", "data.columns={label: p_chosen}"]))
        assert dict(added.data.columns) == {**before, "label": "p_chosen"}


def test_null_takes_the_choice_of_a_group_that_may_have_none() -> None:
    """What an experiment chose, or the default, or a word before; a group that needs a choice is left to the check."""
    words = ["experiment=vote_members", "members=lora", "members=null", "treatment=null", "peft=null", "name=null"]
    told = without_choices("train", words)
    assert told == ["experiment=vote_members", "members=lora", "~members", "treatment=[]", "~peft", "name=null"]
    check_keys("train", told)
    taken = composed("members=heads", *told[2:])
    assert (taken.members, taken.treatment, taken.name) == (None, {}, None)
    assert without_choices("train", ["members=null", "members=heads"]) == ["members=heads"]
    assert composed(*without_choices("train", ["experiment=flip_simcse", "treatment=null"])).treatment == {}
    assert without_choices("train", ["optimizer=null", "seed=1,2"]) == ["optimizer=null", "seed=1,2"]


@pytest.mark.parametrize(("word", "told"), [("--lr=1e-5", "lr=1e-5"), ("--lr", "lr=...")])
def test_a_key_with_dashes_is_told_how_it_stands(word: str, told: str) -> None:
    with pytest.raises(ValueError, match=rf"^'{word}': keys stand without dashes, .*: {told}$"):
        sort_words([word])
    assert sort_words(["--multi", "--cfg", "job", "-m", "seed=1"]).looks_only  # Hydra's, one of them cut short
    with pytest.raises(ValueError, match=r"^--config-dir: say where, as --config-dir=\.\.\.$"):
        sort_words(["seed=1", "--config-dir"])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("models=runs/a,runs/b", "for each of them; a list is models=[runs/a,runs/b]"),
        ("+optimizer.betas=0.9,0.95", "for each of them; a list is +optimizer.betas=[0.9,0.95]"),
        ("module=baseline,meta", "for each of them"),
        ("seed=range(0,3)", "for each of them"),
        ("data.file=choice(a,b)", "for each of them"),
    ],
)
def test_several_values_of_a_command_that_runs_once_are_told_how_they_are_given(word: str, told: str) -> None:
    with pytest.raises(ValueError, match=r" has several values: add -m to run the command ") as caught:
        check_single(parse([word]), {"module"})
    assert str(caught.value) == f"{word} has several values: add -m to run the command {told}"
    check_single(parse(["models=[runs/a,runs/b]", "data.file='a,b'", "module=meta", "~data"]), {"module"})


@pytest.mark.parametrize("name", ["it's.jsonl", 'say "a".jsonl', "a=b.jsonl", "x (1).jsonl", "a,b.jsonl", "d\\'.jsonl"])
def test_the_quotes_that_an_error_proposes_are_those_that_are_needed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of it's.jsonl it proposed a line that no shell ends."""
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    with pytest.raises(ValueError, match="data") as caught:
        check_single(parse([f"data.file={name}"]), {"module"})
    told = str(caught.value)
    [word] = shlex.split(told[told.rindex("'data.file=") :])
    assert parse([word])[0].value() == name


@pytest.mark.parametrize("word", ["grid=voters", "launcher=joblib"])
def test_what_is_of_a_sweep_is_not_left_out(word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word} is of a sweep: add -m, or the command is run once, without it$"):
        check_single(parse(["seed=1", word]), {"grid", "launcher"})
    check_single(parse(["~grid", "~launcher"]), {"grid", "launcher"})


def test_a_command_says_so_before_anything_is_loaded(cli: Cli) -> None:
    said = cli("evaluate", "models=a,b")
    assert (said.code, said.err) == (
        1,
        "error: models=a,b has several values: add -m to run the command for each of them; a list is models=[a,b]\n",
    )


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("a=runs/ü 1", "runs/ü 1"),
        ("a=[données.jsonl , b]", ["données.jsonl", "b"]),
        ("a={b: ä}", {"b": "ä"}),
        ("a='ä'", "ä"),
        ("a=${oc.env:ü}", "${oc.env:ü}"),
    ],
)
def test_letters_that_are_not_ascii_need_no_quotes(word: str, read: object) -> None:
    """Hydra's grammar takes them within quotes alone, and so they are what its own reading of the line gets."""
    assert parse([word])[0].value() == read
    assert OverridesParser.create().parse_override(quoted_where_needed(word)).value() == read


def test_a_home_folder_is_written_out_as_some_shells_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`out="~/x"` made a folder that is called ~."""
    monkeypatch.setenv("HOME", "/home/me")
    words = ["out=~/a", '+x.y="~/b"', "runs=[~/a,b~/c,~/d]", "a=~", "a=b/~/c", "~grid"]
    told = ["out=/home/me/a", '+x.y="/home/me/b"', "runs=[/home/me/a,b~/c,/home/me/d]", "a=~", "a=b/~/c", "~grid"]
    assert [with_home(word) for word in words] == told
    monkeypatch.setenv("HOME", "/home/me (x)")
    assert with_home("out=~/a") == "out=~/a"


@pytest.mark.skipif(os.name != "posix", reason="a folder that a process works in stays on Windows")
def test_a_working_folder_that_is_gone_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    (gone := tmp_path / "gone").mkdir()
    os.chdir(gone)
    gone.rmdir()
    said = cli("train", "seed=0")
    os.chdir(tmp_path)
    told = "error: the folder that this command works in is not there any more; go to another one\n"
    assert (said.code, said.err) == (1, told)


def test_letters_that_a_process_cannot_read_are_a_sentence() -> None:
    """`LC_ALL=POSIX` without Python's UTF-8 mode hands over bytes in place of letters."""
    check_text(["a=ü"], "/ü")
    with pytest.raises(ValueError, match=r"^'out=ü' has letters that this process cannot read, .*: set PYTHONUTF8=1"):
        check_text(["seed=1", "out=\udcc3\udcbc"], "/")


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("train", "data=p.jsonl", "no such choice; name a file or folder with data=jsonl data.file=FILE; there are"),
        ("train", "backbone=org/model", "name a file or folder with backbone=hub backbone.path=NAME_OR_FOLDER"),
        ("score", "data=p.jsonl", "there is no key data; the nearest is in"),
        ("serve", "+treatment=[flip]", "there is no key treatment"),
        ("export", "model=run", "there is no key model; the nearest is run"),
    ],
)
def test_a_group_is_of_the_commands_that_read_it(verb: str, word: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_keys(verb, [word])
    assert message in str(caught.value)


def test_every_command_checks_its_keys(cli: Cli) -> None:
    for verb in verbs():
        said = cli(verb, "+nonsense_key=1")
        assert (said.code, "there is no key nonsense_key" in said.err) == (1, True), verb


def test_every_key_that_is_shown_has_a_comment() -> None:
    for verb in sorted(path.stem for path in CONF.glob("*.yaml")):
        told = read_help(verb)
        assert told.about
        assert [key for key in told.keys if key not in told.comments] == [], verb


def test_help_is_of_the_choices_that_are_made(cli: Cli) -> None:
    said = cli("train", "data=jsonl", "--help", "all")
    assert said.code == 0
    for line in (
        "data=jsonl",
        "data.file=???",
        "a path, a glob or a list of them",
        "optimizer=adamw",
        "trainer.devices=1",
    ):
        assert line in said.out
    assert "data.num_pairs" not in said.out
    assert "data.num_pairs=12000" in help_text("train")


def test_help_is_two_screens_and_says_how_to_see_every_key(cli: Cli) -> None:
    """What is nearly always set stands with its comment, all other keys by their names; a group, and all, on demand."""
    short, whole = cli("train", "--help").out, cli("train", "--help", "all").out
    assert len(short.splitlines()) <= 100
    assert max(map(len, short.splitlines())) <= 120
    told = read_help("train")
    for key in told.keys:
        assert f"  {key}=" in whole
        name = key.removeprefix(f"{key.partition('.')[0]}.")
        assert f"  {key}=" in short or name in short, key
    assert "of a whole conversation" in short
    assert "optimizer steps of the run; -1" not in short
    assert all(key in whole.replace("\n", " ") for key in told.inner)
    assert "`--help all` every key." in short
    of_group = cli("train", "trainer=ddp", "--help", "trainer").out
    assert "optimizer steps of the run; -1" in of_group
    assert "trainer.devices=auto" in of_group
    assert "  data.epochs=" not in of_group
    assert "optimizer steps of the run; -1" in cli("train", "trainer=cpu", "--help").out
    said = cli("train", "--help", "trainr")
    assert (said.code, "there is no such group; say all, or data, backbone" in said.err) == (1, True)


def test_help_takes_the_words_of_a_run(cli: Cli, tmp_path: Path) -> None:
    """Flags with their values, groups without a choice and several values; what is wrong with a word is a sentence."""
    (tmp_path / "more").mkdir()
    said = cli("train", "peft=null", "-m", "seed=0,1", "data.epochs=7", "--config-dir", "more", "--help")
    assert (said.code, "  data.epochs=7" in said.out) == (0, True)
    (tmp_path / "more" / "module").mkdir()
    (tmp_path / "more" / "module" / "mine.yaml").write_text("_target_: own.Mine\nbeta: 1.0 # of its part\n")
    said = cli("train", "--config-dir", "more", "module=mine", "allow_targets=true", "--help", "all")
    assert (said.code, "| voters | mine" in " ".join(said.out.split())) == (0, True)
    assert re.search(r"^  module.beta=1.0 +of its part$", said.out, flags=re.MULTILINE)
    for word, told in (("data=jsnl", "the nearest is jsonl"), ("lr=1", "the nearest is optimizer.lr")):
        said = cli("train", word, "--help")
        assert (said.code, told in said.err, "Traceback" in said.err) == (1, True, False)
    assert cli("train", "--config-dir=none").err == "error: --config-dir=none: there is no such folder\n"


def test_what_is_asked_first_imports_nothing_heavy() -> None:
    """Help, version, completion and a key that is none: before torch and transformers."""
    code = """
import sys
from lightning_rm.commands import _entry
from lightning_rm.commands.main import main
asked = ["--help", "--version", "train --version", "train --help", "train lr=1"]
for words in [["--complete", "lightning-rm train data=sy"], *(line.split() for line in asked)]:
    sys.argv, _entry._arguments = ["lightning-rm", *words], None
    try:
        main()
    except SystemExit:
        pass
print(sorted({"torch", "transformers", "lightning", "matplotlib", "pyarrow"} & sys.modules.keys()))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = said.stdout.splitlines()
    assert lines[-1] == "[]"
    assert lines.count(f"lightning-rm {version('lightning-rm')}") == 2
    assert "data=synthetic" in lines
    assert "the nearest is optimizer.lr" in said.stderr


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lightning-rm tr", ["train"]),
        ("lightning-rm ", [*verbs(), "--help", "--version", "--completion"]),
        (
            "lightning-rm train data=synthetic_",
            ["data=synthetic_scored", "data=synthetic_shift", "data=synthetic_strength"],
        ),
        ("lightning-rm train optimizer.l", ["optimizer.lr="]),
        ("lightning-rm train data=jsonl data.fi", ["data.file="]),
        ("lightning-rm train data=jsnl data.fi", []),
        ("lightning-rm train seed=", []),
        ("lightning-rm trian a", []),
        ("lightning-rm train 'data.file=", []),
    ],
)
def test_what_a_shell_proposes(line: str, found: list[str]) -> None:
    assert complete(line, verbs()) == found


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_takes_what_it_is_proposed(tmp_path: Path) -> None:
    """Behind a = bash completes what follows alone."""
    fake = tmp_path / "lightning-rm"
    fake.write_text("#!/bin/sh\necho data=synthetic\necho data=synthetic_shift\n")
    fake.chmod(0o755)
    script = SCRIPTS["bash"] + (
        'COMP_LINE="lightning-rm train data=syn"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=4\n'
        'COMP_WORDS=(lightning-rm train data = syn); _lightning_rm; echo "${COMPREPLY[@]}"'
    )
    said = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True
    )
    assert said.stdout.split() == ["synthetic", "synthetic_shift"]


def test_a_verb_that_is_none(cli: Cli) -> None:
    assert cli("trian") == (2, "", cli("trian").err)
    assert "no verb 'trian'; the nearest is train" in cli("trian").err
    assert cli()[0] == 2
    assert "usage: lightning-rm VERB" in cli("--help").out
    assert cli("--completion", "tcsh").err == "name a shell: bash, zsh, fish\n"


def swept(monkeypatch: pytest.MonkeyPatch, *words: str, task: Any) -> int:
    """The exit code of a command over the configuration of `serve`."""
    monkeypatch.setattr(_entry, "_arguments", None)
    monkeypatch.setattr(sys, "argv", ["lightning-rm", *words])
    try:
        command("serve")(task)()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_job_that_fails_stops_no_other_and_the_sweep_says_which(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran: list[int] = []

    def task(cfg: DictConfig) -> None:
        ran.append(cfg.max_items)
        if cfg.max_items == 1:
            raise ValueError("identical=drop leaves nothing")
        if cfg.max_items == 2:
            raise RuntimeError("a fault of ours")
        if cfg.max_items == 3:
            raise SystemExit(1)

    sweep = ["max_items=0,1,2,3,4", "-m", "hydra.sweep.dir=sweep"]  # a flag stands anywhere
    assert swept(monkeypatch, *sweep, task=task) == 1
    assert ran == [0, 1, 2, 3, 4]
    shown = " ".join(capfd.readouterr().err.split())
    for words in (
        "3 of 5 jobs are not done",
        "identical=drop leaves nothing",
        "RuntimeError: a fault of ours",
        "exit code 1",
        "done",
    ):
        assert words in shown
    assert json.loads((tmp_path / "sweep" / "1" / "job.json").read_text())["overrides"] == ["max_items=1"]
    assert swept(monkeypatch, *sweep, task=Mock(return_value=math.nan)) == 0
    assert '"result": null' in (tmp_path / "sweep" / "1" / "job.json").read_text()  # JSON has no NaN
    assert "are not done" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        (["--multi", "max_items=1,2"], ""),
        (["hydra.mode=MULTIRUN", "max_items=1,2"], ""),
        (["--config-dir=more", "-cn", "mine"], "--config-dir=more -cn mine hydra.mode=RUN "),
    ],
)
def test_a_sweep_is_one_however_it_is_asked_for(
    words: list[str],
    alone: str,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By a word that is cut short, by Hydra's own key, and by a configuration of the user's own."""
    (tmp_path / "more").mkdir()
    mine = "defaults: [serve, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {max_items: '1,2'}}}\n"
    (tmp_path / "more" / "mine.yaml").write_text(mine)
    assert is_multirun(words) == (not alone)
    task = Mock(side_effect=ValueError("it went wrong"))
    assert swept(monkeypatch, *words, "hydra.sweep.dir=sweep", task=task) == 1
    shown = capfd.readouterr().err
    assert "2 of 2 jobs are not done" in shown
    assert f"\n  lightning-rm serve {alone}max_items=2 hydra.run.dir=sweep/1\n" in shown
    assert not is_multirun([*words, "hydra.mode=RUN"][1:])


def test_a_job_of_a_sweep_has_words_of_its_own(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it hands on to other commands, in whatever process it runs; what follows another key does so in each job."""
    (tmp_path / "more").mkdir()
    found: list[list[str]] = []

    def task(cfg: DictConfig) -> None:
        found.append(arguments())
        if cfg.max_items == 2:
            raise ValueError("it went wrong")

    sweep = ["--config-dir=more", "-m", "max_items=1,2", "name=a_${max_items}", "hydra.sweep.dir=sweep"]
    assert swept(monkeypatch, *sweep, task=task) == 1
    folder = f"--config-dir={tmp_path / 'more'}"
    assert found == [[folder, f"max_items={number}", r"name=a_$\{max_items\}"] for number in (1, 2)]
    assert arguments() == sweep
    shown = capfd.readouterr().err
    assert "1 of 2 jobs are not done" in shown
    again = r"serve --config-dir=more max_items=2 'name=a_$\{max_items\}' hydra.run.dir=sweep/1"
    assert f"\n  lightning-rm {again}\n" in shown


def test_what_hydra_shows_is_what_would_run(cli: Cli) -> None:
    """`--cfg job` stands anywhere, and its value is none of the command's own words."""
    shown = cli("train", "peft=null", "--cfg", "job", "-p", "optimizer")
    assert (shown.code, shown.err) == (0, "")
    for flags in (["-m", "--cfg", "job"], ["--resolve"]):
        shown = cli("train", *flags)
        assert (shown.code, shown.err[:7], "Traceback" in shown.err) == (1, "error: ", False)
    given = sort_words(["peft=null", "--cfg", "job", "--resolve", "--info=config", "--config-d", "x", "seed=1"])
    assert (given.own, given.looks_only, given.folder) == (["peft=null", "seed=1"], True, "x")
    assert given.flags == ["--cfg", "job", "--resolve", "--info=config", "--config-d", "x"]


def test_a_search_that_finds_nothing_ends_with_its_table(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs lightning-rm[sweep]")

    def task(cfg: DictConfig) -> None:
        raise ValueError("identical=drop leaves nothing")

    search = ["hydra/sweeper=optuna", "max_items=choice(0,1)", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
    assert swept(monkeypatch, "-m", *search, "hydra.sweep.dir=sweep", task=task) == 1
    shown = capfd.readouterr().err
    assert "2 of 2 jobs are not done" in shown
    assert "Traceback" not in shown


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra makes it before the command begins, and shows where it failed."""
    (tmp_path / "file").write_text("")
    for words in (["hydra.run.dir=file/run"], ["-m", "seed=0,1", "hydra.sweep.dir=file"]):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=r"cannot be made: .*file is a file; say where to write with hydra\."):
            check_folder(words)
    (tmp_path / "rounds" / "round_0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"rounds holds rounds of lightning-rm rlhf; name another .* hydra\.run\.dir="):
        check_folder(["hydra.run.dir=rounds"])
    check_folder([f"hydra.run.dir={tmp_path}/a/b"])
    check_folder(["seed=3", "hydra.run.dir=x/${name}"])
    for free in ((0, 0, 0), (2**30, 2**29, 2**29)):
        monkeypatch.setattr("shutil.disk_usage", Mock(return_value=free))
        check_folder([])
    monkeypatch.setattr("shutil.disk_usage", Mock(return_value=(2**30, 2**30, 0)))
    with pytest.raises(ValueError, match=r"runs: the disk of .* is full; make room, or .* hydra\.run\.dir="):
        check_folder([])
    monkeypatch.setattr("os.access", Mock(return_value=False))  # root may write where others may not
    with pytest.raises(ValueError, match=r"runs: .* cannot be written; say where to write with hydra\.run\.dir="):
        check_folder([])


def test_sigterm_that_no_job_has_seen_ends_a_sweep_by_its_own_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a launcher that waits for jobs in other processes."""
    monkeypatch.setattr(SweepNoted, "on_multirun_start", Mock(side_effect=Terminated()))
    assert swept(monkeypatch, "-m", "max_items=0,1", "hydra.sweep.dir=sweep", task=Mock()) == 143


def test_ctrl_c_ends_a_sweep(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def task(cfg: DictConfig) -> None:
        ran.append(cfg.max_items)
        raise KeyboardInterrupt

    assert swept(monkeypatch, "-m", "max_items=0,1", "hydra.sweep.dir=sweep", task=task) == 130
    assert ran == [0]


def test_the_systems_errors_are_sentences_with_the_file() -> None:
    assert in_words(PermissionError(13, "Permission denied", "cache/a.arrow")) == "cache/a.arrow: Permission denied"
    assert str(in_words(OSError(28, "No space left on device", "a.ckpt"))).startswith(
        "a.ckpt: No space left on device; "
    )
    assert in_words(KeyError("a fault of ours")) is None


def checkpoint(run: Path, step: int = 3, name: str = "resume") -> Path:
    path = run / "checkpoints" / f"{name}.ckpt"
    content = {"state_dict": {}, "loops": {}, "global_step": step, "optimizer_states": []}
    CheckpointFiles().save_checkpoint(content, path)
    (run / "config.yaml").write_text("name: a\n")
    return path


def test_a_run_goes_on_in_the_folder_of_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("runs/a [b] (c=d)")
    path = checkpoint(run)
    there = [f"hydra.run.dir={quoted(str(run))}", f"resume={quoted(str(path))}"]
    assert with_folder(["seed=1", f"resume={quoted(str(path))}"]) == ["seed=1", *there]
    assert with_folder([f"resume={quoted(str(run))}"]) == there
    assert with_folder(["resume=auto", f"hydra.run.dir={quoted(str(run))}"]) == there
    latest = checkpoint(run, 6, "last")
    assert with_folder([f"resume={quoted(str(run))}"])[1] == f"resume={quoted(str(latest))}"
    assert with_folder(["resume=auto", "hydra.run.dir=new"]) == ['hydra.run.dir="new"']
    elsewhere = path.rename("copied.ckpt")
    assert with_folder([f"resume={elsewhere}"]) == [f'resume="{elsewhere}"']
    assert with_folder(["hydra.run.dir=b", f"resume={quoted(str(latest))}"])[0] == 'hydra.run.dir="b"'
    for folder in ("", "runs/a/${now:%Y}"):
        with pytest.raises(ValueError, match="name it with hydra"):
            with_folder(["resume=auto"], folder)
    assert with_folder(["resume=auto"], str(run)) == [there[0], f"resume={quoted(str(latest))}"]
    for words in (["resume=auto", "hydra.run.dir=runs/${name}"], ["resume=auto"]):  # the job finds out
        assert with_folder(words, "runs/${name}") == words
    with pytest.raises(ValueError, match="is a folder without a checkpoint"):
        with_folder([f"resume={tmp_path / 'runs'}"])
    for words in (["seed=1"], ["resume=null"], ["-m", f"resume={latest.name}"]):
        assert with_folder(words) == words


def test_a_runs_own_configuration_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(Path("runs/a"))
    words = [f"--config-path={tmp_path}/runs/a", "--config-name=config", "resume=auto", "hydra.run.dir=runs/a"]
    monkeypatch.setattr(sys, "argv", ["lightning-rm", *words])
    monkeypatch.setattr(_entry, "_arguments", None)
    with monkeypatch.context() as patch:
        patch.setattr("signal.signal", Mock())
        _entry.prepare("train")
    assert sys.argv[1:] == [*words[:2], 'hydra.run.dir="runs/a"', f'resume="{path}"']


def test_hydra_is_told_names_that_are_not_ascii_in_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside mappings that it is told otherwise than they are given."""
    monkeypatch.chdir(tmp_path)
    words = ["data=jsonl", "data.where={lang: français}", "hydra.run.dir=runs/été"]
    monkeypatch.setattr(sys, "argv", ["lightning-rm", *words])
    monkeypatch.setattr(_entry, "_arguments", None)
    with monkeypatch.context() as patch:
        patch.setattr("signal.signal", Mock())
        _entry.prepare("train")
    assert sys.argv[1:] == ["data=jsonl", '+data.where={lang: "français"}', 'hydra.run.dir="runs/été"']


def test_a_job_that_slurm_puts_back_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the job and the command line: others of the same job are other runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    first, other = Path("runs/a/1"), Path("runs/a/2")
    paths = {}
    for run, words in ((first, ["seed=1", "allow_targets=true"]), (other, ["seed=2"])):
        paths[run] = checkpoint(run)
        write_job(run, words)
    assert with_folder(["seed=1"]) == ["seed=1"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert with_folder(["seed=1"]) == ["seed=1", f'hydra.run.dir="{first}"', f'resume="{paths[first]}"']
    assert with_folder(["seed=3"]) == ["seed=3"]
    paths[first].unlink()
    assert with_folder(["seed=1"]) == ["seed=1", f'hydra.run.dir="{first}"']
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert with_folder(["seed=1"]) == ["seed=1"]
    fixed = [f"hydra.run.dir={other}"]
    write_job(other, fixed)
    assert with_folder(fixed) == [f'hydra.run.dir="{other}"', f'resume="{paths[other]}"']
    undated = checkpoint(Path("runs/b"))  # an experiment's own folder
    write_job(Path("runs/b"), ["seed=4"])
    assert with_folder(["seed=4"]) == ["seed=4", 'hydra.run.dir="runs/b"', f'resume="{undated}"']
    job = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(other)))  # of a sweep, in its own folder
    monkeypatch.setattr("lightning_rm.commands._resume.HydraConfig.get", lambda: job)
    assert is_requeued(OmegaConf.create({"resume": None}), fixed)
    assert not is_requeued(OmegaConf.create({"resume": None}), ["seed=2"])
    assert not is_requeued(OmegaConf.create({"resume": "runs/b"}), fixed)
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert not is_requeued(OmegaConf.create({"resume": None}), fixed)


@pytest.mark.parametrize("value", ["a", "a b", 'x"y', "x\\\\", "C:\\\\x\\\\y", "[/b]{}(),=:", "it's"])
def test_a_quoted_value_is_read_whole(value: str) -> None:
    assert OverridesParser.create().parse_override(f"a={quoted(value)}").value() == value


def test_a_signal_while_a_command_is_loaded_is_a_word_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stopped, code in ((KeyboardInterrupt(), 130), (Terminated(), 143)):
        monkeypatch.setattr(_entry, "prepare", Mock(side_effect=stopped))
        monkeypatch.setattr(sys, "argv", ["lightning-rm", "score"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, capsys.readouterr().err) == (code, "interrupted\n")
