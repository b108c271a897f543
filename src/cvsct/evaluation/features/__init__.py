"""Radiomic features: regions, their measurement by PyRadiomics, a cache, and `features.csv`."""
