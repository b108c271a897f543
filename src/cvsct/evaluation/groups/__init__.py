"""Comparison of groups of patients (scanners, sites) where no two scans show one patient."""
