"""`cvsct doctor`."""

from __future__ import annotations

import sys

from cvsct.core.text import columns


def doctor() -> None:
    """Tell what this machine and installation can do; exit code 1 if not even the core works."""
    from cvsct.cli import installation, machine

    findings = [*installation.findings(), *machine.findings()]
    print(columns([(one.about, one.detail) for one in findings]))
    wrong = [one.about for one in findings if one.wrong]
    print(f"the core does not work: {', '.join(wrong)}" if wrong else "the core works")
    if wrong:
        sys.exit(1)
