"""How alike two scanners' images are, before and after: image quality and radiomic concordance."""
