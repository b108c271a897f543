"""Virtual bodies."""
