"""Files from somebody else that would run code: refused, and nothing is run. Others stand beside what they attack:
weights and checkpoints in `models/backbone/test_loading.py` and `callbacks/test_checkpoint_files.py`, long lines and
gzip files without end in `data/sources/test_files.py`, targets in `commands/test_targets.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.drafts import clear_drafts, folder_draft
from lightning_rm.scoring.parts import Parts


class Runs:
    """What a pickle of it would do where it is read: leave a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.sign), "w")


def test_objects_in_numpy_files_are_not_unpickled(tmp_path: Path) -> None:
    hostile = np.array([Runs(tmp_path / "sign")], dtype=object)
    with (tmp_path / "000000.npz").open("wb") as file:
        np.savez(file, rewards=hostile, places=np.zeros(0), reasons=np.zeros(0))
    with pytest.raises(ValueError, match="allow_pickle"):
        Parts(tmp_path).read(0)
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch sign').read() }}",
        "{{ messages.append('x') }}",
    ],
)
def test_a_chat_template_reaches_nothing_but_its_turns(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = world_tokenizer()
    tokenizer.chat_template = template
    turns = [{"role": "user", "content": "a"}]
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        tokenizer.apply_chat_template(turns, tokenize=False)
    assert turns == [{"role": "user", "content": "a"}]
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_folder_does_not_lead_a_writer_out_of_it(tmp_path: Path) -> None:
    """What is replaced is the link: the file that it points to stays as it was."""
    secret, folder = tmp_path / "secret", tmp_path / "model"
    secret.write_text("mine")
    folder.mkdir()
    (folder / "config.json").symlink_to(secret)
    (folder / f"a.{'host'}-1-{'0' * 12}.tmp").symlink_to(secret)
    clear_drafts(folder)
    with folder_draft(folder, keep=lambda name: name == "kept") as draft:
        (draft / "config.json").write_text("new")
    assert secret.read_text() == "mine"
    assert (folder / "config.json").read_text() == "new"
    assert not (folder / "config.json").is_symlink()
