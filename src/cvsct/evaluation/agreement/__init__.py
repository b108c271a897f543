"""Agreement of the features of two sets of images: concordance, its tests, and ComBat."""
