"""What a shell proposes while a command is typed: verbs, keys, groups and their choices. It reads yaml alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._help import choices_of, read_help

SCRIPTS = {
    "bash": r"""_lightning_rm() {
  local IFS=$'\n'
  COMPREPLY=($(lightning-rm --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
  # bash takes what follows a = or : for a word of its own
  local word="${COMP_LINE:0:COMP_POINT}"; word="${word##* }"; local before="${word%"${COMP_WORDS[COMP_CWORD]}"}"
  [[ "${COMP_WORDS[COMP_CWORD]}" == "=" ]] && before="$word"
  COMPREPLY=("${COMPREPLY[@]#"$before"}")
  [[ ${#COMPREPLY[@]} == 1 && "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
complete -o default -F _lightning_rm lightning-rm
""",
    "zsh": r"""_lightning_rm() {
  local -a found
  found=("${(@f)$(lightning-rm --complete "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
  compadd -S '' -- $found || _files
}
compdef _lightning_rm lightning-rm
""",
    "fish": r"""complete -c lightning-rm -a '(lightning-rm --complete (commandline -cp) 2>/dev/null)'
""",
}
"""What a shell's start-up file evaluates: `eval "$(lightning-rm --completion bash)"`."""


def complete(line: str, verbs: Sequence[str]) -> list[str]:
    """Return what the last word of a line may become.

        "lightning-rm tr"  ->  ["train"]    "lightning-rm train data=sy"  ->  ["data=synthetic", ...]

    Args:
        line: as typed up to the cursor.
        verbs: the commands.
    """
    try:
        words = shlex.split(line)
    except ValueError:  # within a quoted value
        return []
    if line.endswith(" ") or len(words) < 2:
        words.append("")
    *_, word = words
    if len(words) == 2:
        return [verb for verb in (*verbs, "--help", "--version", "--completion") if verb.startswith(word)]
    verb, before = words[1], words[2:-1]
    if verb not in verbs:
        return []
    key, sign, _ = word.partition("=")
    if sign:
        folder = Path(conf_dir()) / key
        found = [f"{key}={choice}" for choice in choices_of(folder)] if folder.is_dir() else []
        return [choice for choice in found if choice.startswith(word)]
    try:
        told = read_help(verb, [other for other in before if "=" in other and not other.startswith("-")])
    except Exception:  # a shell that completes a word is not told what is wrong with others
        told = read_help(verb)
    return sorted(f"{name}=" for name in {*told.groups, *told.keys} if name.startswith(word))
