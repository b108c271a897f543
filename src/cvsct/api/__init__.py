"""Public functions of the package, on paths and on volumes in memory.

The names are re-exported by `cvsct`. They return values, raise `CvsctError` and print nothing:
progress and notes go to callbacks.
"""
