"""Engines that run a network: OpenVINO and PyTorch."""
