"""`python -m cvsct.cli`."""

from cvsct.cli import main

main()
