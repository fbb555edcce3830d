"""Write the reference of every configuration key from conf/: its default, and the comment that stands beside it."""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+):(?: (?P<value>.*?))?(?:  ?# (?P<comment>.*))?$")
HEAD = """# Every configuration key

Made from `conf/`, which a wheel carries too. A key is set on the command line by its full name,
`data.max_tokens=2048`; a group takes another file by its name, `data=jsonl`. Keys that begin with an underscore name
what is built; those that only hand a value on (`${...}`) are left out.

"""


def write_reference(conf: Path, out: Path) -> None:
    """Write the page.

    Args:
        conf: the folder of the configuration.
        out: a Markdown file.
    """
    commands = sorted(conf.glob("*.yaml"), key=lambda path: (path.stem != "train", path.stem))
    groups = sorted({path.parent for path in conf.rglob("*.yaml")} - {conf})
    parts = [HEAD, "## Commands\n"]
    parts += [_section(path, f"`lightning-rm {path.stem}`") for path in commands]
    parts.append("## Groups\n")
    for group in groups:
        name = group.relative_to(conf).as_posix()
        parts.append(f"### {name}\n")
        parts += [_choice(path, name) for path in sorted(group.glob("*.yaml"))]
    out.write_text("\n".join(parts), encoding="utf-8")


def _section(path: Path, title: str) -> str:
    return f"### {title}\n\n{_intro(path)}\n{_table(path, '')}"


def _choice(path: Path, group: str) -> str:
    prefix = "" if "@package _global_" in path.read_text(encoding="utf-8") else f"{group.replace('/', '.')}."
    return f"**`{group}={path.stem}`**\n\n{_intro(path)}\n{_table(path, prefix)}"


def _intro(path: Path) -> str:
    """The comment at the top of a file: prose as it is, its commands as code."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    prose: list[str] = []
    code: list[str] = []
    for line in lines:
        if line.startswith(("lightning-rm", "python ", "torchrun")):
            code.append(line)
        elif "@package" not in line:
            prose.append(line)
    text = " ".join(filter(None, prose)).replace("<", "&lt;")
    block = "\n".join(["```bash", *code, "```"]) if code else ""
    return "\n\n".join(filter(None, (text, block))) + "\n"


def _table(path: Path, prefix: str) -> str:
    """The keys of a file as a table; nothing where it has none of its own."""
    rows: list[str] = []
    above: list[tuple[int, str]] = []
    hidden: int | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if not found or line.lstrip().startswith("#"):
            continue
        indent, key, value = len(found["indent"]), found["key"], (found["value"] or "").strip()
        if hidden is not None and indent > hidden:
            continue
        hidden = None
        above = [(depth, name) for depth, name in above if depth < indent]
        if key in ("defaults", "hydra") and indent == 0:
            hidden = indent
            continue
        full = prefix + ".".join([*(name for _, name in above), key])
        above.append((indent, key))
        if key.startswith("_") or not value or (re.fullmatch(r"\$\{[^{}]*\}", value) and not found["comment"]):
            continue
        rows.append(f"| `{full}` | `{value.replace('|', chr(92) + '|')}` | {_escaped(found['comment'] or '')} |")
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) + "\n" if rows else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
