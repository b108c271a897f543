"""Generators, discriminators and feature extractors in PyTorch."""
