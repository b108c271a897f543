"""`python -m cvsct`."""

from cvsct.cli import main

main()
