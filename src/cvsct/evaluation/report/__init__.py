"""Report of an evaluation: verdict, tables, figures, HTML page and `metrics.json`."""
