"""Virtual scanners and bodies."""
