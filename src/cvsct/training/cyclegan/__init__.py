"""Training from unpaired scans: CVS-CT and its ablations."""
