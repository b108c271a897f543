"""ComBat: harmonization of features, fitted on patients of several batches (scanners, sites)."""
