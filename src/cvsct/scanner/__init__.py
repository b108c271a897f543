"""Virtual CT scanners: a phantom, two vendors, and the images they would have made of it."""
