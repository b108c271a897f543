"""Guards of a model: checks of a scan before it is mapped, and of each mapped slice.

Most modules are pure functions of arrays and plain values. `inference`, which reads scans and
applies models, calls them and acts on their verdicts.
"""
