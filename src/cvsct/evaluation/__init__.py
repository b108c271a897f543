"""Agreement of harmonized scans with the target scanner's: image quality, physics, features."""
