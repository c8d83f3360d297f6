"""``python -m ztunnel.cli``."""

from ztunnel.cli import main

main()
