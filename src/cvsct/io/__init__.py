"""CT files in and out: DICOM series to `CTVolume`, `CTVolume` to derived DICOM series."""
