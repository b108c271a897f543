"""Many series, each harmonized once whatever dies on the way."""
