"""Harmonization methods: their table, what they share, and those without a network."""
