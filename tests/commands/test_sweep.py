"""A sweep says which of its jobs failed or were lost, and how each runs again alone; every grid is of keys that are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._keys import check_keys
from lightning_rm.commands._sweep import WORD, SweepTable, words_of

SWEEPS = sorted((Path(conf_dir()) / "grid").glob("*.yaml"))


def test_a_job_that_left_no_word_was_lost_and_runs_again_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        noted = tmp_path / str(number) / ".hydra" / "overrides.yaml"
        noted.parent.mkdir(parents=True)
        noted.write_text(f"- seed={number}\n- name=a b\n")
        if number != 1:
            word = {"overrides": [f"seed={number}"], "error": None}
            (tmp_path / str(number) / WORD).write_text(json.dumps(word))
    assert [word["error"] is None for word in words_of(tmp_path).values()] == [True, False, True]
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "job": {"config_name": "train"}}})
    with pytest.raises(SystemExit):
        SweepTable().on_multirun_end(config)
    said = capsys.readouterr().err
    assert "1 of 3 jobs failed" in said
    assert f"lightning-rm train seed=1 'name=a b' hydra.run.dir={tmp_path}/1 resume=auto" in said


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_grid_is_of_keys_that_are(path: Path) -> None:
    params = OmegaConf.to_container(OmegaConf.load(path))["hydra"]["sweeper"]["params"]  # pyright: ignore
    words = [f"{key}={value}" for key, value in params.items()]
    module = "contrastive" if "module.beta" in params else "meta" if "module.ascent_lr" in params else "baseline"
    check_keys("train", [f"module={module}", *words])
    assert all(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(words))
