"""CT as DICOM: read, checked, derived and written."""
