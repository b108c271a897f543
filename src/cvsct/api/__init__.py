"""What the package offers, as functions on paths and on volumes in memory.

The names are re-exported by `cvsct`. They return values, raise `CvsctError` and print nothing:
progress and notes go to callbacks.
"""
