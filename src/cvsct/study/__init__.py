"""Studies: scans of many scanners, brought to one reference, with their features as one table."""
