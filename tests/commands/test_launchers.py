"""Real sweeps by joblib, submitit and Optuna, on this machine: tiny runs train, and one that dies is named.

Jobs are forks, which read their task from a pickle as they would in an interpreter of their own. Ray's are in
`test_ray.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.conftest import Cli
from tests.processes import FORKS, Fork

SMALL = [
    "logger=none",
    "trainer=cpu",
    "data.num_pairs=16",
    "data.num_val=8",
    "data.num_test=8",
    "data.batch_pairs=8",
    "data.max_tokens=256",
    "backbone.model.config.hidden_size=16",
    "trainer.max_steps=1",
    "monitor=null",
]
DIES = "+callbacks.dies._target_=lightning.pytorch.callbacks.Callback,os.abort"


@pytest.mark.filterwarnings("ignore:`fork` start method should not be used:UserWarning")
def test_optuna_searches_by_runs_of_joblib(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials at a time in two processes; what it finds is the best `monitor` of the two."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs lightning-rm[sweep]")
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs lightning-rm[sweep]")
    if FORKS:
        monkeypatch.setattr("joblib.externals.loky.backend.context._DEFAULT_START_METHOD", "fork")
    words = ["grid=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "launcher=joblib"]
    words += [*SMALL[:-2], "trainer.max_epochs=1", "monitor=val/nll", "mode=min"]
    said = cli("train", "-m", *words, "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    assert said.code == 0, said.err
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    told = [json.loads((tmp_path / "sweep" / str(job) / "job.json").read_text()) for job in (0, 1)]
    assert found["best_value"] == min(word["result"] for word in told)
    assert {word["process"][1] for word in told}.isdisjoint({os.getpid()})
    assert found["best_params"].keys() == {"optimizer.lr", "scheduler.warmup"}


@pytest.mark.usefixtures("allowed")
def test_submitit_runs_jobs_and_one_that_dies_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs lightning-rm[sweep]")
    if FORKS:
        monkeypatch.setattr("submitit.local.local.start_controller", forked_controller)
    said = cli(
        "train", "-m", *SMALL, DIES, "allow_targets=true", "launcher=slurm_local", f"hydra.sweep.dir={tmp_path}/sweep"
    )
    check_that_one_died(tmp_path, said.code, said.err)


@pytest.mark.skipif(os.name != "posix", reason="Slurm's commands are stubs of a POSIX shell")
def test_a_partition_that_is_none_is_told_in_sbatchs_words(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First there is no Slurm, then one that refuses: Hydra would answer with a traceback."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs lightning-rm[sweep]")
    monkeypatch.setenv("PATH", str(tmp_path))
    refuses = "printf 'sbatch: error: %s\\n' 'invalid partition' 'submission failed' >&2"
    for told in ('Could not detect "srun"', "sbatch: error: invalid partition; sbatch: error: submission failed\n"):
        said = cli("train", "-m", *SMALL, "launcher=slurm", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
        assert said.code == 1
        assert f"error: Slurm has taken no job: {told}" in said.err
        assert "2 of 2 jobs are not done" in said.err
        assert "Traceback" not in said.err
        for name, does in (("srun", ""), ("sbatch", refuses)):
            (tmp_path / name).write_text(f"#!/bin/sh\n{does}\nexit 1\n")
            (tmp_path / name).chmod(0o755)


def forked_controller(folder: Path, command: str, **_: Any) -> Fork:
    """A job of one task of submitit, which is told by its environment which one it is."""
    from submitit.core.submission import submitit_main
    from submitit.core.utils import JobPaths

    def job() -> None:
        os.environ["SUBMITIT_LOCAL_JOB_ID"] = str(os.getpid())
        paths = JobPaths(folder, str(os.getpid()), 0)
        for path, to in ((paths.stdout, 1), (paths.stderr, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), to)
        sys.argv = shlex.split(command)[3:]  # from `python -u -m submitit.core._submit`
        submitit_main()

    names = ("NTASKS", "JOB_NUM_NODES", "NODEID", "GLOBALID", "LOCALID")
    environment = dict(zip((f"SUBMITIT_LOCAL_{name}" for name in names), "11000", strict=True))
    return Fork(job, {**environment, "SUBMITIT_EXECUTOR": "local"})


def check_that_one_died(folder: Path, code: int, said: str) -> None:
    """Of two jobs the first trained to its end, and the second is told with how it runs again."""
    assert code == 1
    assert "1 of 2 jobs are not done" in said
    assert (folder / "sweep" / "0" / "model" / "last" / "config.json").is_file()
    alone = next(line for line in said.splitlines() if "lightning-rm train allow_targets=true" in line)
    assert f"hydra.run.dir={folder}/sweep/1 resume=auto" in alone
    assert "_target_=os.abort" in alone


@pytest.mark.skipif(os.name != "posix", reason="Slurm's scripts are of a POSIX shell")
def test_the_documented_script_of_a_ray_cluster_starts_no_workers_on_no_nodes(tmp_path: Path) -> None:
    """With `--nodes=1` the head is the whole cluster: `srun --nodes=0` is refused by Slurm."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    script = next(part for part in page.split("```") if "ray start --head" in part).removeprefix("bash\n")
    stubs = "scontrol() { echo first; }; ray() { :; }; python() { :; }; lightning-rm() { echo annotated; }\n"
    for nodes, others in ((1, []), (4, ["--nodes=3 --ntasks=3"])):
        (tmp_path / "script.sh").write_text(f'{stubs}srun() {{ echo "$@"; }}\nSLURM_JOB_NUM_NODES={nodes}\n{script}')
        told = subprocess.run(["bash", tmp_path / "script.sh"], capture_output=True, text=True, check=True)
        started = [line for line in told.stdout.splitlines() if "ray start" in line]
        assert sorted(" ".join(line.split()[:2]) for line in started) == ["--nodes=1 --ntasks=1", *others]
        assert "annotated" in told.stdout
        assert told.stderr == ""
