"""Whether a model may be trusted with a scan, and with what it made of each slice.

Everything here stands on the foundation alone: pure functions of arrays and plain values. Who
reads scans and applies models (`inference`) asks, and decides what follows.
"""
