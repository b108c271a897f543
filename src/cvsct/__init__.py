"""Cross-vendor CT harmonisation: scans of one scanner rewritten as if another had made them."""

__version__ = "0.1.0"
