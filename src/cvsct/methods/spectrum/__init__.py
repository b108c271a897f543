"""The spectral filter: noise and structure by a gain each."""
