"""Where the standalone program begins.

The node starts its engine as `python -P -m …` in a process of its own. In a standalone program there is no `python`,
only this file again: so it understands `-m` itself.
"""

import runpy
import sys
from multiprocessing import freeze_support


def main() -> None:
    """Run a module of ours, or the command line."""
    freeze_support()
    rest = sys.argv[1:]
    while rest[:1] == ["-P"]:
        rest = rest[1:]
    if len(rest) > 1 and rest[0] == "-m" and rest[1].startswith("tokenplace."):
        module = rest[1]
        sys.argv = rest[1:]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    from tokenplace.cli.main import app

    app()


if __name__ == "__main__":
    main()
