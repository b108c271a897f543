"""What everything else stands on: volumes, masks, spectra, pairing, errors, files, workers."""
