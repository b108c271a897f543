"""A trained model applied to volumes."""
