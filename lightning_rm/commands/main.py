"""`lightning-rm VERB ...` runs the command file of that name: `lightning-rm train trainer=gpu seed=1`."""

from __future__ import annotations

import difflib
import pkgutil
import runpy
import sys

from lightning_rm import commands


def verbs() -> list[str]:
    """Return every command: a file of this folder that is not private and not this one."""
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    return sorted(name for name in names if not name.startswith("_") and name != "main")


def usage() -> str:
    """Return the commands that there are, a line each."""
    lines = ["usage: lightning-rm VERB [GROUP=NAME or KEY=VALUE ...]", ""]
    width = max(map(len, verbs()))
    lines += [f"  {verb:<{width}}  {_about(verb)}" for verb in verbs()]
    return "\n".join(
        [
            *lines,
            "",
            "lightning-rm VERB --help          the keys of a verb, each with what it is",
            "lightning-rm --version",
            'eval "$(lightning-rm --completion bash)"   has the shell complete verbs, keys and choices (or zsh, fish)',
        ]
    )


def main() -> None:
    """Run the command named by the first argument with the rest of them."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        from lightning_rm.commands._entry import version_text

        print(version_text())
        return
    if words[0] in ("--completion", "--complete"):
        from lightning_rm.commands._completion import SCRIPTS, complete

        if len(words) < 2 or (words[0] == "--completion" and words[1] not in SCRIPTS):
            print(f"name a shell: {', '.join(SCRIPTS)}", file=sys.stderr)
            raise SystemExit(2)
        print(SCRIPTS[words[1]] if words[0] == "--completion" else "\n".join(complete(words[1], verbs())))
        return
    verb = sys.argv.pop(1)
    if verb not in verbs():
        close = difflib.get_close_matches(verb, verbs(), 1, 0.5)
        print(f"no verb {verb!r}{f'; the nearest is {close[0]}' if close else ''}\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    try:
        from lightning_rm.commands._entry import prepare

        prepare(verb)
        # As a module under its own name, so that a launcher that starts this process again finds the same command.
        runpy.run_module(f"lightning_rm.commands.{verb}", run_name="__main__", alter_sys=True)
    except KeyboardInterrupt as stopped:  # while it was loaded, or in a command with nothing to keep
        from lightning_rm.commands._stopped import exit_after

        print("interrupted", file=sys.stderr)
        exit_after(stopped)


def _about(verb: str) -> str:
    """Return what a command's file says of it in its first line, after its name."""
    spec = next(found for found in commands.__path__)
    with open(f"{spec}/{verb}.py", encoding="utf-8") as file:
        return file.readline().strip().strip('"').partition(": ")[2]


if __name__ == "__main__":
    main()
