"""What runs a network: OpenVINO or PyTorch."""
