"""`python -m packer_lib.demo [--once]`: the paper's three case studies, live, on this machine's own metrics."""

from __future__ import annotations

import argparse
import signal
import sys

from rich.console import Console
from rich.markup import escape

from packer_lib.demo.screen import Screen
from packer_lib.errors import MLPackerError


def main() -> int:
    """0 when all three cases were live and noticed the burst, 130 after Ctrl-C before that, else what failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end by itself, with 0 only when everything worked")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        from packer_lib.demo import story  # after the options: --help needs none of it

        return story.play(options.once, Screen(console))
    except MLPackerError as failed:
        console.print(f"[red]{escape(str(failed))}", highlight=False, soft_wrap=True)
        return failed.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
