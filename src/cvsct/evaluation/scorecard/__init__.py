"""Scorecard of an evaluation: what can be signed, tile by tile."""
