"""Public functions of the package, on paths and on volumes in memory.

The names are re-exported by `cvsct`. They return values, raise `CvsctError` and print nothing to
stdout: progress and notes go to callbacks, notes without one to the log.
"""
