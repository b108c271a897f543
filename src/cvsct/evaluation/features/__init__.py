"""Radiomic features of regions."""
