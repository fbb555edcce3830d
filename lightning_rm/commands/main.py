"""`lightning-rm VERB ...` runs the command file of that name: `lightning-rm train trainer=gpu seed=1`."""

from __future__ import annotations

import pkgutil
import runpy
import sys

from lightning_rm import commands


def verbs() -> list[str]:
    """Every command: a file of this folder that is not private and not this one."""
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    return sorted(name for name in names if not name.startswith("_") and name != "main")


def main() -> None:
    """Run the command named by the first argument with the rest of them."""
    usage = (
        "usage: lightning-rm VERB [key=value ...]\n"
        f"verbs: {', '.join(verbs())}\n"
        "`lightning-rm VERB --help` shows the keys of a verb"
    )
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(usage)
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    verb = sys.argv.pop(1)
    if verb not in verbs():
        print(f"no verb {verb!r}\n{usage}", file=sys.stderr)
        raise SystemExit(2)
    # As a module under its own name, so that a launcher that starts this process again finds the same command.
    runpy.run_module(f"lightning_rm.commands.{verb}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
