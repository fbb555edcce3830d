"""What to say of a key that there is not: the one that was probably meant, or the choice of a group that has it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from lightning_rm.commands._choices import Choice
from lightning_rm.commands._config import conf_dir, followed
from lightning_rm.commands._other_names import ALSO, OF_CHOICES, name_here


def unknown_key(key: str, choice: Choice) -> str:
    """Return the sentence for a key that a configuration does not have."""
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        group = ".".join(parts[:depth])
        is_free = group in choice.groups and f"{group}.{parts[depth]}" not in choice.values
        if is_free and (having := _choices_with(group, parts[depth])):
            choices = " and ".join(f"{group}={one}" for one in having[:3])
            return f"there is no key {key} here; {choices} {'have' if len(having) > 1 else 'has'} one"
    other = name_here(key)
    near = other if other in choice.groups else nearest(key, choice.values)
    if near is None and (groups := difflib.get_close_matches(key, choice.groups, 1, 0.6)):
        near = groups[0]
    hint = f"the nearest is {near}" if near else "--help shows them all"
    return f"there is no key {key}; {hint}"


def nearest(key: str, known: Mapping[str, object]) -> str | None:
    """Return the known key that an unknown one was probably meant to be; None if that is not clear.

    lr -> optimizer.lr    data.batch_size -> data.batch_pairs    trainer.max_epoch -> trainer.max_epochs
    """
    parent, _, name = key.rpartition(".")
    if here := [also for also in ALSO.get(name, ()) if also in known]:
        return here[0]
    other = name_here(key)
    if other in known or other.startswith("hydra."):
        return other
    if other in OF_CHOICES and other.partition(".")[0] in known:
        return OF_CHOICES[other]
    same = [own for own in known if own.rpartition(".")[2] == name]
    same = [own for own in same if not followed(known[own]) & set(same)] or same
    if same:
        return max(same, key=lambda own: difflib.SequenceMatcher(None, own, key).ratio())
    siblings = {own.rpartition(".")[2]: own for own in known if parent and own.rpartition(".")[0] == parent}
    begun = [sibling for sibling in siblings if sibling.startswith(name) or name.startswith(sibling)]
    if close := difflib.get_close_matches(name, siblings, 1, 0.6) or begun[:1]:
        return _source(siblings[close[0]], known)
    if close := difflib.get_close_matches(key, known, 1, 0.6):
        return _source(close[0], known)
    tails = {own.rpartition(".")[2]: own for own in known}
    close = difflib.get_close_matches(name, tails, 1, 0.75)
    return _source(tails[close[0]], known) if close else None


def _source(key: str, known: Mapping[str, object]) -> str:
    """Return the key whose value an inner one takes: `data.max_tokens` for `data.module.max_tokens`."""
    if key.count(".") < 2:
        return key
    named = [name for name in followed(known[key]) if name in known]
    return named[0] if len(named) == 1 and not isinstance(known[key], dict) else key


def _choices_with(group: str, name: str) -> list[str]:
    """Return the choices of a group whose own file has a key of this name."""
    files = sorted((Path(conf_dir()) / group).glob("*.yaml"))
    return [
        path.stem
        for path in files
        if re.search(rf"^{re.escape(name)}:", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
