"""Method `spectrum`: a spectral filter with separate gains for noise and structure."""
