"""Runs scenarios on a planet of real processes, and counts what passed."""

import argparse
import os
import pathlib
import signal
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "edge"))

import scenarios
import wan
from machines import Planet
from nodes import Tally


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path, help="portolan")
    names = [it.__name__ for it in scenarios.ALL]
    parser.add_argument("--only", choices=names, action="append", help="one scenario")
    parser.add_argument("--other", type=pathlib.Path, help="every second node's binary")
    parser.add_argument("--keep", help="a folder for logs, kept")
    args = parser.parse_args()
    if why := wan.possible():
        print(f"planet: skipped: {why}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="portolan-planet-") as folder:
        if args.keep:
            folder = args.keep
            os.makedirs(folder, exist_ok=True)
        with Planet(args.binary, folder, ["FRA", "NYC", "SIN"], other=args.other) as planet:
            for scenario in scenarios.ALL:
                if args.only and scenario.__name__ not in args.only:
                    continue
                print(f"planet: {scenario.__name__}", flush=True)
                try:
                    scenario(planet, tally)
                except (AssertionError, OSError) as error:
                    tally.check(scenario.__name__, f"{type(error).__name__}: {error}")
    print(f"planet: {tally.passed} passed, {tally.failed} failed")
    sys.exit(tally.failed > 0 or tally.passed == 0)


if __name__ == "__main__":
    main()
