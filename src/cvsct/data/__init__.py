"""Training data: volumes to seeded soft-tissue patches."""
