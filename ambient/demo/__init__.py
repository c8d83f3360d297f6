"""``ambient demo``: the mesh shown at work on this machine, step by step, every claim checked.

``run`` is the order of the steps and what is left at the end; ``scene`` the lab, the mesh and the commands; ``steps_*`` the steps;
``echo``, ``say``, ``get`` and ``policy`` are the small programs that the shown commands run. They import nothing but the
standard library, so that a command takes a tenth of a second.
"""
