"""Application of a trained model to volumes and series."""
