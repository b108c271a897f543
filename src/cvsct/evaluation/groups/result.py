"""Result of a comparison of groups, with its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvsct.core.files import made_folder, write_atomic, write_json
from cvsct.evaluation.groups.figures import PhysicsSummary, RegionFigures
from cvsct.evaluation.groups.settings import GroupSettings
from cvsct.evaluation.groups.signal_kept import SignalKept
from cvsct.evaluation.groups.verdict import PATIENTS_DIFFER, GroupVerdict, verdict
from cvsct.evaluation.report.groups_page import groups_html


@dataclass(frozen=True)
class GroupEvaluation:
    """Result of a comparison of groups of patients before and after harmonization.

    Args:
        settings: what was compared.
        regions: figures of each region name.
        physics: figures of images by group.
        signal: what is left of the difference between outcomes; None without an outcome.
        notes: remarks that a reader needs to trust the figures.
    """

    settings: GroupSettings
    regions: tuple[RegionFigures, ...]
    physics: tuple[PhysicsSummary, ...] = ()
    signal: SignalKept | None = None
    notes: tuple[str, ...] = ()

    @property
    def verdicts(self) -> dict[str, GroupVerdict]:
        """Verdict on each region."""
        return {region.region: verdict(region, self.settings) for region in self.regions}

    def summary(self) -> str:
        """The verdicts, a line for each region."""
        return "\n".join(f"{region}: {judged.text}" for region, judged in self.verdicts.items())

    def metrics(self) -> dict[str, Any]:
        """Contents of `groups.json`."""
        return {
            "warning": PATIENTS_DIFFER + ".",
            "verdicts": {region: asdict(judged) for region, judged in self.verdicts.items()},
            "regions": [region.to_json() for region in self.regions],
            "physics": [asdict(summary) for summary in self.physics],
            "signal_kept": self.signal.to_json() if self.signal else None,
            "notes": list(self.notes),
            "settings": self.settings.model_dump(mode="json"),
            "research_use_only": True,
        }

    def features_csv(self) -> str:
        """Text of `group_features.csv`: a row for each region, stage, contrast and feature."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ("region", "stage", "contrast", "feature", "standardized_difference", "ks_p", "found")
        )
        for region in self.regions:
            for stage in region.stages:
                for row in stage.by_feature:
                    cells = ("" if np.isnan(v) else repr(v) for v in (row.difference, row.p_value))
                    writer.writerow(
                        (region.region, stage.stage, row.contrast, row.feature, *cells,
                         int(row.found))
                    )  # fmt: skip
        return text.getvalue()

    def write(self, folder: Path | str) -> Mapping[str, Path]:
        """Write `groups.html`, `groups.json` and `group_features.csv` into a folder.

        None of them names a patient; the page shows a point for each. The folder is made where
        there is none.

        Raises:
            UsageError: if a file stands in the folder's way.
            MissingExtraError: if the extra `evaluate` is not installed.
        """
        names = ("groups.json", "group_features.csv", "groups.html")
        files = {name: made_folder(folder) / name for name in names}
        write_json(files["groups.json"], self.metrics())
        write_atomic(files["group_features.csv"], self.features_csv())
        write_atomic(
            files["groups.html"],
            groups_html(
                self.settings, self.regions, self.verdicts, self.physics, self.signal, self.notes
            ),
        )
        return files
