"""The mesh measured side by side with no mesh, and with another proxy: ``python -m perf``, see docs/PERFORMANCE.md.

``perf/hbone.py`` and other single files are micro-benchmarks, run by their path.
"""
