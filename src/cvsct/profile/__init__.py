"""Profiles of scanners: texture statistics that a hospital can share in place of images."""
