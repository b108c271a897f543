"""Virtual scanners: spectra, detector, projection, reconstruction."""
