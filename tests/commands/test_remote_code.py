"""A model that brings code: no command runs it, or asks, unless the command line trusts it."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import pytest

from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.rlhf.policy import load_policy, policy_config
from tests.commands.conftest import Cli
from tests.rlhf.policies import save_policy
from tests.toy import write_jsonl

CODE = """
open({sign!r}, "w").close()
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaTokenizerFast
class Config(LlamaConfig): model_type = "foreign"
class Model(LlamaForCausalLM): config_class = Config
class Classifier(LlamaForSequenceClassification): config_class = Config
class Tokenizer(LlamaTokenizerFast): pass
"""

DATA = ["data=jsonl", "data.file=pairs.jsonl"]

COMMANDS = {
    "train": ["backbone=hub", "backbone.path=MODEL", *DATA, "trainer=cpu", "logger=csv", "hydra.run.dir=out"],
    "annotate": ["voters=[MODEL]", *DATA, "out=out.parquet", "accelerator=cpu"],
    "score": ["model=MODEL", "in=pairs.jsonl", "out=out.jsonl", "accelerator=cpu"],
    "evaluate": ["models=[MODEL]", *DATA, "out=out", "accelerator=cpu"],
    "ensemble": ["voters=[MODEL]", *DATA, "out=out", "accelerator=cpu"],
    "overoptimise": ["models=[MODEL]", "responses.num_prompts=2", "responses.k=2", "out=out", "accelerator=cpu"],
    "analyze": ["features=[MODEL]", *DATA, "set=train", "out=out", "accelerator=cpu"],
    "curate": [*DATA, "fit=null", "voters=[MODEL]", "out=out", "accelerator=cpu"],
    "serve": ["model=MODEL", "port=0", "accelerator=cpu"],
    "sample": ["policy=MODEL", *DATA, "out=out.jsonl", "k=2", "max_new_tokens=2", "accelerator=cpu"],
    "sample voters": ["policy=policy", "voters=[MODEL]", *DATA, "out=out.jsonl", "k=2", "accelerator=cpu"],
    "weigh": ["policy=MODEL", "reference=null", "relative=0", *DATA, "out=out.parquet", "accelerator=cpu"],
    "weigh reference": ["policy=policy", "reference=MODEL", *DATA, "out=out.parquet", "accelerator=cpu"],
    "rlhf": ["policy=MODEL", *DATA, "eval_set=train", "out=out", "accelerator=cpu", "trainer=cpu"],
    "rlhf judge": [
        *("policy=policy", *DATA, "eval_set=train", "out=out", "accelerator=cpu", "trainer=cpu"),
        *("judge=reward_model", "judge.model=MODEL", "monitor=null", "num_prompts=2", "k=2", "max_new_tokens=2"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, a policy, and a model whose code leaves the file `sign` where it is run."""
    folder = tmp_path_factory.mktemp("made")
    write_jsonl(folder / "pairs.jsonl", SyntheticSource(12, split="train"))
    model = save_policy(folder / "model")
    shutil.copytree(model, folder / "policy")
    (model / "foreign.py").write_text(CODE.format(sign=str(folder / "sign")))
    names = {
        "AutoConfig": "Config",
        "AutoModelForCausalLM": "Model",
        "AutoModelForSequenceClassification": "Classifier",
    }
    bring(model / "config.json", auto_map={name: f"foreign.{own}" for name, own in names.items()})
    bring(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "foreign.Tokenizer"]})
    shutil.copytree(model, folder / "foreign")
    bring(folder / "foreign" / "config.json", model_type="foreign")
    return folder


def bring(file: Path, **settings: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a user was asked")

    monkeypatch.setattr(builtins, "input", ask)


@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_a_model_brings_is_not_run(command: str, cli: Cli, made: Path, tmp_path: Path) -> None:
    places = {"MODEL": made / "foreign", "policy=policy": f"policy={made}/policy", "pairs.jsonl": made / "pairs.jsonl"}
    words = COMMANDS[command]
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    said = cli(command.split()[0], *words)
    assert said.code == 1, said.out
    assert "trust_remote_code" in said.err
    assert "Traceback" not in said.err
    assert not (made / "sign").exists()
    assert not [*tmp_path.glob("out*")]


def test_nor_is_it_run_beside_an_architecture_that_is_known(made: Path) -> None:
    """The library's own class reads the weights."""
    tokenizer = load_tokenizer(made / "model")
    policy = load_policy(made / "model")
    reward = RewardModel.from_pretrained(made / "model", tokenizer=tokenizer)
    homes = {type(each).__module__.partition(".")[0] for each in (tokenizer, policy, reward.backbone)}
    assert homes == {"transformers"}
    assert not (made / "sign").exists()


def test_it_is_run_where_it_is_trusted(made: Path) -> None:
    """So that the tests above would see it."""
    policy_config(made / "foreign", trust_remote_code=True)
    assert (made / "sign").exists()
    (made / "sign").unlink()
