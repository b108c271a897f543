"""What the program must survive, each a goal that is measured: `python -m tests.faults.NAME`.

The same functions run with small counts in `pytest`, and in full with `make faults`;
docs/reference/reliability.md has the figures.
"""
