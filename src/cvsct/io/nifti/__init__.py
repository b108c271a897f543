"""CT as NIfTI: read, checked, derived and written."""
