"""`lightning-rm rlhf`: a round of the made world whole, stage by stage, and killed at each; what is refused."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hydra.errors import InstantiationException
from rich.console import Console
from safetensors.torch import load_file

from lightning_rm.commands._process import words_of as handed_on
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._round_checks import check_all
from lightning_rm.commands._round_setup import Setup
from lightning_rm.commands._rounds import RoundStages
from lightning_rm.commands.rlhf import rlhf
from lightning_rm.commands.train import train
from lightning_rm.data.rows import GroupRow, Message
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.rlhf.judges import Comparison, PlantedJudge
from lightning_rm.rlhf.measures import read_judged
from lightning_rm.rlhf.round_table import RoundTable
from lightning_rm.rlhf.rounds import Round
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import load_model
from tests.commands.conftest import Cli
from tests.commands.test_conf import composed
from tests.figures import draw_nothing, full_for_figures
from tests.float64 import roughly
from tests.processes import lightning_rm
from tests.rlhf.policies import save_policy
from tests.toy import toy_model, write_jsonl

SIZES = [
    *("num_prompts=8", "k=3", "max_new_tokens=8", "num_eval_prompts=4", "eval_set=train", "batch_prompts=4"),
    *("data.max_tokens=128", "data.batch_pairs=8", "trainer=cpu", "accelerator=cpu", "optimizer.lr=1e-3"),
    *("data.val_fraction=0", "monitor=null", "policy_optimizer.lr=1e-2", "rounds=1"),
]
ANNOTATOR = "{_target_: lightning_rm.data.synthetic.annotator.Annotator}"
META = ["module=meta", "labels.share=0.5", f"labels.annotator={ANNOTATOR}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_policy(folder / "policy")
    write_jsonl(folder / "pairs.jsonl", SyntheticSource(24, split="train"))
    return folder


def words_of(world: Path, out: Path, *more: str) -> list[str]:
    data = [f"policy={world}/policy", "data=jsonl", f"data.file={world}/pairs.jsonl", f"out={out}"]
    return [
        *data,
        *SIZES,
        *(word.replace("._target_=", "={_target_: ") + "}" if "._target_" in word else word for word in more),
    ]


def test_a_file_is_the_same_from_another_folder(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.symlink_to(world)
    words = words_of(world, Path("out"))
    monkeypatch.chdir(world)

    def train_words(*words: str) -> list[str]:
        cfg = composed(*words, command="rlhf")
        return RoundStages(Setup(cfg, words, lambda words: None, Console())).model.train_words(Round(world, 1))

    there = train_words(*words)
    for place in ("", "./", "../" + world.name + "/", f"{other}/"):
        assert train_words(*(word.replace(f"={world}/", f"={place}") for word in words)) == there
    template = composed(*words, "chat_template=tone.jinja", command="rlhf")
    learns = RoundStages(Setup(template, words, lambda words: None, Console())).policy
    assert 'backbone.chat_template="tone.jinja"' in learns.distil_words(f"{world}/policy", Path("chosen.jsonl"))
    project = ["logger.project=pairs.jsonl"]  # is not a file, though one of that name is here
    assert (world / "pairs.jsonl").is_file()
    assert handed_on(project, ("logger",)) == project


def test_what_a_folder_of_the_users_says_is_part_of_what_stages_are_made_of(world: Path, tmp_path: Path) -> None:
    """The words are the same after a yaml was edited, and a stage that is made is of other inputs all the same."""
    (tmp_path / "optimizer").mkdir()
    words = words_of(world, tmp_path, f"--config-dir={tmp_path}", "optimizer=mine", "optimizer.eps=1e-7")

    def inputs(written: str) -> dict[str, Any]:
        (tmp_path / "optimizer" / "mine.yaml").write_text(f"_target_: torch.optim.AdamW\n{written}\n")
        there = f"hydra.searchpath=[file://{tmp_path}]"
        cfg = composed(*(word for word in words if word[0] != "-"), there, command="rlhf")
        stages = RoundStages(Setup(cfg, words, lambda words: None, Console()))
        found: dict[str, Any] = {**stages.model.train_inputs(Round(tmp_path, 1))}
        return found | {"others": [stages.setup.choices(("data",)), stages.setup.choices(("trainer",))]}

    before = inputs("weight_decay: 0.1\neps: 1\nlr: 1")
    assert inputs("# said otherwise by a word\neps: 2\nlr: 2\nweight_decay: 0.1") == before
    after = inputs("weight_decay: 0.2\neps: 1\nlr: 1")
    assert {name for name in after if after[name] != before[name]} == {"yaml of --config-dir"}
    with pytest.raises(ValueError, match=r"^mine is a configuration of this command alone"):
        handed_on(["--config-name=mine", "seed=1"], ("seed",))


def test_a_chat_template_that_was_edited_is_another(world: Path, tmp_path: Path) -> None:
    words = words_of(world, tmp_path, f"chat_template={tmp_path}/tone.jinja")

    def inputs(tone: str) -> dict[str, Any]:
        (tmp_path / "tone.jinja").write_text(tone + "{% for message in messages %}{{ message['content'] }}{% endfor %}")
        setup = Setup(composed(*words, command="rlhf"), words, lambda words: None, Console())
        return RoundStages(setup).sample_inputs(Round(tmp_path, 1))

    before, after = inputs("Be brief. "), inputs("Be kind. ")
    assert {name for name in after if after[name] != before[name]} == {"template"}
    assert inputs("Be brief. ") == before


class Runner:
    """Runs commands in forks; is killed before or after the so-many-th."""

    def __init__(self, folder: Path, killed_at: float | None = None) -> None:
        self.folder, self.killed_at = folder, killed_at
        self.ran: list[str] = []
        self.checked = 0

    def __call__(self, words: Sequence[str]) -> None:
        if "check=true" in words:  # what is gone through before round 1 is the same command in this process
            self.checked += 1
            train(composed(*words[1:-1], f"hydra.runtime.output_dir={self.folder}", f"hydra.sweep.dir={self.folder}"))
            return
        if self.killed_at == len(self.ran):
            raise KeyboardInterrupt
        done = lightning_rm(self.folder, *words)
        assert done.returncode == 0, done.stderr
        self.ran.append(words[0])
        if self.killed_at == len(self.ran) - 0.5:
            raise KeyboardInterrupt


def test_a_policys_training_is_checked_on_as_many_pairs_as_a_round_has_prompts(world: Path, tmp_path: Path) -> None:
    """Of four made-up pairs it was said that one batch of 16 holds them all, where a round has thousands."""
    (tmp_path / "out").mkdir()
    seen: list[int] = []

    def counted(words: Sequence[str]) -> None:
        (file,) = [word.removeprefix("data.file=").strip('"') for word in words if word.startswith("data.file=")]
        seen.append(len(Path(file).read_text().splitlines()))

    words = words_of(world, tmp_path / "out", "num_prompts=6")
    check_all(RoundStages(Setup(composed(*words, command="rlhf"), words, counted, Console(quiet=True))))
    assert seen == [24, 6]  # the data's own pairs, and what the policy may learn from six prompts


def run(words: list[str], runner: Runner) -> RoundTable | None:
    return rlhf(composed(*words, command="rlhf"), words, runner)


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_RM_CACHE", str(folder / "cache"))
        draw_nothing(patch)
        runner = Runner(folder)
        table = run(words_of(world, folder / "out", *META), runner)
    assert runner.ran == ["sample", "train", "train"]
    assert runner.checked == 2
    assert table is not None
    assert list(table.measures) == [0, 1]
    return folder / "out"


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(out / f"round_1/{name}/model/last/model.safetensors")


def test_a_round_leaves_its_record(whole: Path) -> None:
    rounds = json.loads((whole / "rounds.json").read_text())
    assert list(rounds["rounds"]) == ["0", "1"]
    start, first = rounds["rounds"]["0"], rounds["rounds"]["1"]
    assert start["reward"] is None
    assert start["kl"] == start["win"] == start["lose"] == 0
    assert first["win"] + first["tie"] + first["lose"] == roughly(1.0)
    assert first["kl"] > 0
    assert first["policy"]["num_groups"] == 8
    with (whole / "rounds.csv").open() as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["0", "1"]
    with (whole / "csv/metrics.csv").open() as file:
        assert [float(row["rlhf/gold"]) for row in csv.DictReader(file)] == roughly([start["gold"], first["gold"]])
    assert "| 1 |" in (whole / "rounds.md").read_text()
    assert (whole / "rounds.png").is_file()


def test_figures_that_a_full_disk_kept_from_being_drawn_are_drawn_by_the_next_start(
    whole: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the rounds; and those of a training, which has its results and ended with an error: nothing is run."""
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(whole.parent / "cache"))
    draw_nothing(monkeypatch)
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    words, runner = words_of(world, out, *META), Runner(tmp_path, killed_at=0)
    (out / "rounds.png").unlink()
    with full_for_figures(monkeypatch), pytest.raises(OSError, match="No space left on device"):
        run(words, runner)
    assert not (out / "rounds.png").exists()
    run(words, runner)
    assert (out / "rounds.png").is_file()
    model = out / "round_1/reward_model"
    figures = {path.name for path in (model / "figures").iterdir()}
    shutil.rmtree(model / "figures")
    Setup(composed(*words, command="rlhf"), words, runner, Console()).train([], model)
    assert {path.name for path in (model / "figures").iterdir()} == figures > {"curves.png"}


def test_gold_and_rewards_are_those_of_the_judge_and_of_score(whole: Path) -> None:
    measures, rows = read_judged(whole / "round_1")
    groups = [row for row in GroupFile(whole / "round_1/judged.jsonl") if isinstance(row, GroupRow)]
    conversations = [[*group.prompt, *response] for group in groups for response in group.responses]
    rewards = score(*load_model(whole / "round_1/reward_model", weights="last"), conversations).tolist()
    assert [reward for row in rows for reward in row["rewards"]] == pytest.approx(rewards, abs=1e-6)
    gold = [value for row in rows for value in row["gold"]]
    assert measures.gold == roughly(sum(gold) / len(gold))
    assert not {row["id"] for row in rows} & {group.id for group in GroupFile(whole / "round_1/responses.jsonl")}  # pyright: ignore[reportAttributeAccessIssue]


def test_stages_alone_killed_and_run_again_equal_the_whole(
    whole: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_nothing(monkeypatch)
    words = words_of(world, tmp_path / "out", *META)
    run([*words, "stage=judge", "round=0"], Runner(tmp_path))
    for stage, num_runs in (("sample", 1), ("labels", 0), ("reward_model", 1), ("policy", 1), ("judge", 0)):
        alone = [*words, f"stage={stage}"]
        if num_runs:  # killed when what is run has ended, and before that is noted
            with pytest.raises(SystemExit, match="130"):
                run(alone, Runner(tmp_path, killed_at=0))
            with pytest.raises(SystemExit, match="130"):
                run(alone, Runner(tmp_path, killed_at=0.5))
        again = Runner(tmp_path)
        run(alone, again)
        assert again.ran == (["sample"] if stage == "sample" else [])  # which finds its file finished
        run(alone, Runner(tmp_path, killed_at=0))
    table = run(words, Runner(tmp_path, killed_at=0))
    assert table is not None
    assert "round 1: policy is there already" in capsys.readouterr().out
    for name in ("responses.jsonl", "labels.jsonl", "chosen.jsonl", "judged.jsonl", "judged.json", "policy.json"):
        assert (tmp_path / "out/round_1" / name).read_bytes() == (whole / "round_1" / name).read_bytes(), name
    for name in ("reward_model", "policy"):
        for key, value in weights(whole, name).items():
            assert torch.equal(value, weights(tmp_path / "out", name)[key])


def test_a_round_judged_alone_is_held_against_a_start_that_was_judged_alike(whole: Path, world: Path) -> None:
    alone = ["stage=judge", "round=1", "overwrite=true"]
    with pytest.raises(ValueError, match=r"round_0 holds a judge of other inputs \(temperature was 1\.0, is 0\.5\)"):
        run([*words_of(world, whole, *META), *alone, "eval_temperature=0.5"], Runner(whole.parent, killed_at=0))
    elsewhere = whole.parent / "elsewhere"
    with pytest.raises(ValueError, match=r"round_0 is not judged yet, .* judge it first \(stage=judge round=0\)"):
        run([*words_of(world, elsewhere, *META), *alone], Runner(whole.parent, killed_at=0))


def test_labels_of_the_round_join_the_pairs(whole: Path) -> None:
    config = (whole / "round_1/reward_model/config.yaml").read_text()
    assert "round_1/labels.jsonl" in config
    assert "round_1/responses.jsonl" in config
    lines = [json.loads(line) for line in (whole / "round_1/labels.jsonl").read_text().splitlines()]
    assert 0 < len(lines) <= 4
    by_gold = PlantedJudge()(
        [
            Comparison(tuple(line["prompt"]), line["chosen"][0]["content"], line["rejected"][0]["content"])
            for line in lines
        ]
    )
    assert all(judgement.gold != judgement.other_gold for judgement in by_gold)


def test_several_models_are_one(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    words = words_of(world, tmp_path / "out", "num_models=2", "combine=worst", "policy_optimizer=rejection")
    words += ["stage=reward_model"]
    run([*words[:-1], "stage=sample"], Runner(tmp_path))
    runner = Runner(tmp_path)
    run(words, runner)
    assert runner.ran == ["train", "train"]
    # without a monitor the last weights are taken, of one model or of several
    setup = Setup(composed(*words, command="rlhf"), words, runner, Console())
    folder = setup.model(tmp_path / "out/round_1/reward_model")
    assert folder == tmp_path / "out/round_1/reward_model/model/last"
    model = load_model(folder).model
    assert model.num_members == 2
    assert model.num_rewards == 1


def test_members_on_one_backbone_have_a_common_zero_where_they_are_compared(world: Path, tmp_path: Path) -> None:
    """Each is taken less its mean over what the policy says, or the worst case would be the one of lowest zero."""
    round, said = Round(tmp_path / "out", 1), ["crab", "lime and apple", "apple"]
    prompt: list[Message] = [{"role": "user", "content": "name two red fruits."}]
    folder = round / "reward_model/model/last"
    MemberRewardModel.of(toy_model(), Members(3)).eval().save_pretrained(folder, world_tokenizer())
    (round / "responses.jsonl").write_text(json.dumps({"prompt": prompt, "responses": said}) + "\n")
    votes = score(*load_model(folder), [[*prompt, {"role": "assistant", "content": text}] for text in said])
    for how, expected in (("worst", (votes - votes.mean(0)).amin(1)), ("mean", votes.mean(1))):
        words = words_of(world, round.out, f"combine={how}")
        setup = Setup(composed(*words, command="rlhf"), words, Runner(tmp_path), Console())
        assert setup.rewards(round)([prompt] * 3, said) == pytest.approx(expected.tolist(), abs=1e-5)


def test_rounds_weigh_pairs_by_the_policy_they_begin_with(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is another policy, so that round 1 weighs; what the data calls its columns stays the data's own."""
    draw_nothing(monkeypatch)
    save_policy(tmp_path / "other", seed=1)
    rows = [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "good": row["chosen"], "chosen": None, "source": "here"}) + "\n" for row in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    words = words_of(world, tmp_path / "out", "weigh=true", "weighing.power=0.5", "labels.share=0.5")
    words = [word for word in words if not word.startswith("data.file")]
    words += [f"data.file={{mine: {tmp_path}/pairs.jsonl}}", "data.weights={mine: 1}", "data.columns={chosen: good}"]
    words += [f"weighing.reference={tmp_path}/other"]
    for stage in ("sample", "labels", "weigh", "reward_model"):
        run([*words, f"stage={stage}"], Runner(tmp_path))
    table = pq.read_table(tmp_path / "out/round_1/weighed.parquet").to_pylist()
    assert [row["source"] for row in table] == ["here"] * len(rows)
    own, other = (np.array([row[f"{name}_log_probs"] for row in table]) for name in ("policy", "reference"))
    ratio = (own - np.logaddexp(math.log(0.1) + own, math.log(0.9) + other)).sum(axis=1)
    expected = np.exp(0.5 * ratio) / np.exp(0.5 * ratio).mean()
    assert [row["weight"] for row in table] == roughly(expected.tolist())
    counts = json.loads((tmp_path / "out/round_1/reward_model/data.json").read_text())
    num_labels = len((tmp_path / "out/round_1/labels.jsonl").read_text().splitlines())
    assert [each["kept"] for each in counts if each["name"] == "train"] == [len(table) + num_labels]
    again = Runner(tmp_path, killed_at=0)
    run([*words, "stage=weigh"], again)
    assert again.checked == 0


def test_broken_weights_are_named_and_not_taken_for_others(
    whole: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(whole.parent / "cache"))
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    words = [*words_of(world, out, *META), "stage=judge"]
    for name in ("policy", "reward_model"):
        file = out / f"round_1/{name}/model/last/model.safetensors"
        held = file.read_bytes()
        for broken in (held[:-100], held[:5], b"", held[:-3] + bytes([held[-3] ^ 1]) + held[-2:]):
            file.write_bytes(broken)
            with pytest.raises(ValueError, match=rf"{file} .*To have it made again, remove {out}/round_1/{name} and"):
                run(words, Runner(tmp_path))
            (file.parent / "checksums.json").rename(tmp_path / "held.json")
            if len(broken) < len(held):
                with pytest.raises(ValueError, match=rf"{file} .*To have it made again"):
                    run(words, Runner(tmp_path))
            (tmp_path / "held.json").rename(file.parent / "checksums.json")
        file.write_bytes(held)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["module=contrastive"], "contrast"),
        (["module=contrastive", "contrast=simcse", "module.dropout_at=null"], "the two views of a batch are equal"),
        (["treatment=[flip]"], "strength"),
        (["module=voters"], "set members=heads"),
        (["trainer.precision=64-true"], "trainer.precision=64-true takes everything"),
        (["monitor=val/accurate"], "there is no metric 'accurate'"),
        (["data.max_tokens=4096"], "the backbone has positions for 256"),
        (["backbone=hub", "backbone.path=nowhere"], "nowhere"),
        (["optimizer.lr=-1"], "optimizer.lr=-1; give 0 or more"),
        (["module=meta", "responses.batch_groups=0"], "batch_groups"),
        (["policy_optimizer.lr=-1"], "optimizer.lr=-1; give 0 or more"),
        (["policy_optimizer.batch_pairs=0"], "batch_pairs=0"),
    ],
)
def test_a_training_that_cannot_work_is_said_before_anything_is_sampled(
    words: list[str], message: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_RM_CACHE", str(tmp_path / "cache"))
    runner = Runner(tmp_path, killed_at=0)
    with pytest.raises((ValueError, InstantiationException), match=message):
        run(words_of(world, tmp_path / "out", *words), runner)
    assert runner.checked
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clip=-1"], "clip=-1"),
        (["combine=warmer"], "combine='warmer'"),
        (["eval_k=0"], "eval_k=0"),
        (["eval_temperature=0"], "eval_temperature=0"),
        (["patience=0"], "patience=0"),
        (["dtype=float8"], "float8"),
        (["max_new_tokens=256"], "leaves no room for a prompt"),
        (["chat_template_kwargs={thinking: true}"], "reads no 'thinking'"),
        (["policy_optimizer=rejection", "policy_optimizer.choose.beta=0"], "beta=0"),
        (["judge=reward_model", "judge.model=nowhere"], "nowhere"),
        (["judge=endpoint", "judge.url=http://localhost:9", "judge.model=m", "judge.key=NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["weigh=true", "weighing.reference=null"], "set relative=0"),
        (["weigh=true", "weighing.clip=0.5"], "clip=0.5"),
        (["weigh=true", "data.overlong=truncate_prompt"], "overlong=truncate_prompt"),
        (["data=synthetic", "weigh=true"], "weigh: weights are of the pairs of a file"),
        (["labels.share=0.5", "data.where={subset: a}"], "data.where would be asked of them too"),
        (["labels.share=0.5", "data.file={a: pairs.jsonl}"], "and data.file mixes several; set weigh=true"),
        (["k=1"], "one response to a prompt leaves nothing to choose among"),
        (["policy_from=first"], "policy_from='first'; give last or start"),
        (["labels.share=2"], "labels.share=2"),
        (["data=synthetic", "labels.share=0.1"], "set data=jsonl data.file=FILE"),
        (["num_models=0"], "num_models=0"),
        (["num_models=2", "members=heads", "module=voters"], "members of several backbones do not answer as one"),
        (["combine=warm", "members=heads", "module=voters"], "combine=warm averages the weights of several models"),
        (["combine=worst"], "combine=worst is of several rewards, and one model gives one"),
        (["module=supervised"], "SupervisedLM trains no rewards to improve a policy by"),
        (["stage=train"], "the stages of this run are sample, reward_model, policy, judge"),
        (["stage=sample", "round=0"], "the first round with a stage sample is 1"),
        (["stage=judge", "round=3"], "round_0 is not judged yet, and later rounds are held against it"),
        (["num_prompts=null"], "has no prompt that is not sampled from"),
        (["policy_optimizer.lrr=1"], "the nearest is policy_optimizer.lr"),
        (["policy=nowhere"], "nowhere"),
        (["policy=null"], "policy=null: it has to be given"),
        (["chat_template_kwargs=3"], "chat_template_kwargs=3; give a mapping: chat_template_kwargs={NAME: VALUE}"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    words: list[str], message: str, world: Path, tmp_path: Path, cli: Cli
) -> None:
    given = [
        word for word in words_of(world, tmp_path / "out") if "data=synthetic" not in words or "data.file" not in word
    ]
    said = cli("rlhf", *given, *words)
    assert said.code == 1
    assert message in said.err.replace("\n", " ")
    assert not (tmp_path / "out/round_1").exists()


def test_a_run_of_training_is_no_place_for_rounds(world: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"out='.*' holds a training run; name another folder"):
        run(words_of(world, tmp_path), Runner(tmp_path))


def test_what_groups_choose_can_be_set(tmp_path: Path) -> None:
    words = ("policy=start", f"out={tmp_path}", "contrast=simcse", "contrast.temperature=0.2", "members=heads")
    cfg = composed(*words, "members.num_members=3", "treatment=[flip]", "backbone=tiny", command="rlhf")
    assert (cfg.contrast.temperature, cfg.members.num_members, list(cfg.treatment)) == (0.2, 3, ["flip"])
    assert cfg.backbone.path == "start"


def test_what_rlhf_chooses_is_handed_to_the_training(tmp_path: Path) -> None:
    """The train command's own choices are others: made pairs, and a model that has no path."""

    def train_words(*words: str) -> set[str]:
        given = ["policy=start", f"out={tmp_path}", *words]
        setup = Setup(composed(*given, command="rlhf"), given, lambda words: None, Console())
        return set(RoundStages(setup).model.train_words(Round(tmp_path, 1)))

    assert {"data=jsonl", "backbone=hub", "backbone.path=mine", "logger=csv"} < train_words(
        "data.file=pairs.jsonl", "backbone.path=mine"
    )
    assert {"data=jsonl", "backbone=hub", f"backbone.path={quoted('start')}"} < train_words("data.file=pairs.jsonl")
    named = train_words("data=synthetic", "backbone=llama3.2_1b", "logger=none")
    assert {"data=synthetic", "backbone=llama3.2_1b", "logger=none"} < named
    assert not {"data=jsonl", "backbone=hub", "logger=csv", f"backbone.path={quoted('start')}"} & named
