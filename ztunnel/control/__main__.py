"""``python -m ztunnel.control --link-fd N``: started by the data plane only."""

import argparse
import sys

from ztunnel.control.app import run


def main() -> int:
    """Parse the one argument and run."""
    parser = argparse.ArgumentParser(prog="ztunnel.control", description="The control half of ztunnel; started by `ztunnel run`.")
    parser.add_argument("--link-fd", type=int, required=True, help="descriptor of the link to the data plane")
    return run(parser.parse_args().link_fd)


if __name__ == "__main__":
    sys.exit(main())
