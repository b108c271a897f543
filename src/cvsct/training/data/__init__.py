"""Patches of two domains, stored, sampled, paired and split."""
