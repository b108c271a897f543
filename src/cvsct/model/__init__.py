"""Model folders: bundle and card, hashes, checks, and the models that come with the package."""
