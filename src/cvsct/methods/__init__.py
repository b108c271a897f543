"""Harmonization methods: the table of all, their common parts, and the ones without a network."""
