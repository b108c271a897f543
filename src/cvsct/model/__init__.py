"""The model folder: bundle, card, hashes, models that come with the package."""
