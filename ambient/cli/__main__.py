"""``python -m ambient.cli`` is ``ambient``."""

from ambient.cli import main

main()
