"""Benchmark of methods on one data set: training, evaluation and tables beside the paper's."""
