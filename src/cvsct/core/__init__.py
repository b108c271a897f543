"""Common ground of all packages: volumes, masks, spectra, pairing, errors, files, workers."""
