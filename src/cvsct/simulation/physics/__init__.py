"""Physics of virtual CT scanners: spectra, projection, detector, noise and reconstruction."""
