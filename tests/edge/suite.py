"""Runs the parts of the edge suite against a binary and counts what passed."""

import argparse
import importlib
import pathlib
import signal
import sys
import tempfile

from nodes import Processes, Tally

PARTS = ["http1", "h2", "slow", "tls"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path, help="portolan")
    parser.add_argument("--only", choices=PARTS, help="one part")
    args = parser.parse_args()
    # Whoever is told to end still ends what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tally = Tally()
    for part in [args.only] if args.only else PARTS:
        print(f"edge-suite: {part}", flush=True)
        with tempfile.TemporaryDirectory(prefix="portolan-edge-") as folder:
            with Processes(folder) as processes:
                try:
                    importlib.import_module(part).run(processes, args.binary.resolve(), tally)
                except (AssertionError, OSError) as error:
                    tally.check(part, f"{type(error).__name__}: {error}")
    print(f"edge-suite: {tally.passed} passed, {tally.failed} failed")
    sys.exit(tally.failed > 0 or tally.passed == 0)


if __name__ == "__main__":
    main()
