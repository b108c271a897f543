"""Harmonization of many series, each exactly once even if processes die."""
