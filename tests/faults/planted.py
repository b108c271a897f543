"""Fifty identifiers to be planted in every series."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, Sequence

KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientNames", "PatientBirthName"),
    *("PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "PatientComments"),
    *("AdditionalPatientHistory", "Occupation", "EthnicGroup", "MilitaryRank", "BranchOfService"),
    *("PatientReligiousPreference", "CountryOfResidence", "RegionOfResidence", "MedicalAlerts"),
    *("MedicalRecordLocator", "Allergies", "ResponsiblePerson", "ResponsibleOrganization"),
    *("AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("DeviceSerialNumber", "ReferringPhysicianName", "ReferringPhysicianAddress"),
    *("ReferringPhysicianTelephoneNumbers", "PerformingPhysicianName", "OperatorsName"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician"),
    *("RequestedProcedureDescription", "PerformedProcedureStepID", "ImageComments"),
    *("PerformedProcedureStepDescription", "AdmissionID", "CurrentPatientLocation"),
    *("DerivationDescription", "GantryID", "RequestingService"),
)
IDENTIFIERS = [f"Zq{i:02d}xW" for i in range(50)]
assert len(KEYWORDS) == len(IDENTIFIERS) - 1


def plant(ds: Dataset, _: int = 0) -> None:
    """One in each attribute, and the last in a private one and deep in a sequence."""
    for keyword, value in zip(KEYWORDS, IDENTIFIERS, strict=False):
        setattr(ds, keyword, value)
    ds.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", IDENTIFIERS[-1])
    other = Dataset()
    other.PatientID = IDENTIFIERS[-1]
    ds.OtherPatientIDsSequence = Sequence([other])
    ds.PatientSize, ds.PatientWeight, ds.WindowCenter = "1.23456", "98.7654", "0040.00"


def spoil(file: Path) -> None:
    """Numbers that are none: what pydicom warns of, quoting them."""
    content = file.read_bytes()
    for i, plain in enumerate((b"1.23456", b"98.7654", b"0040.00")):
        content = content.replace(plain, IDENTIFIERS[i].encode() + b"q")
    file.write_bytes(content)
