"""`cvsct doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict

from cvsct.cli.console import EXIT_FAILED, report_result
from cvsct.core.text import columns


def doctor() -> None:
    """Tell what this machine and installation can do; exit code 1 if not even the core works."""
    from cvsct.cli import installation, machine

    findings = [*installation.findings(), *machine.findings()]
    table = columns([(finding.about, finding.detail) for finding in findings])
    wrong = [finding.about for finding in findings if finding.wrong]
    verdict = (
        f"the core does not work: {', '.join(wrong)}"
        if wrong
        else "the core works: all that is needed to harmonize is there"
    )
    report_result(
        f"{table}\n{verdict}",
        {"works": not wrong, "findings": [asdict(finding) for finding in findings]},
    )
    if wrong:
        sys.exit(EXIT_FAILED)
