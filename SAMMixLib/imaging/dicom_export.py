"""A mask as DICOM Segmentation, tied to the instances of its CT, and its volume as a measurement report (TID 1500)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import SimpleITK as sitk

from SAMMixLib import __version__
from SAMMixLib.errors import SAMMixError
from SAMMixLib.files import atomic
from SAMMixLib.imaging.dicom import is_dicom, parse
from SAMMixLib.imaging.grid import SAME_VOXEL
from SAMMixLib.imaging.writing import check_replaceable
from SAMMixLib.structure import ALTERED, Structure

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER, PRODUCT = "SAMMix", "SAM-Mix"
ALGORITHM = "SAM-Mix"


def series_files(path: Path, mask: sitk.Image, series: str = "") -> list[Path]:
    """The files of the CT series that a mask was made of: below a folder, or beside one file of the series.

    Args:
        mask: on the series' grid, which tells it from others of the folder.
        series: its UID; anything else leaves the choice to the grid.

    Raises:
        SAMMixError: no series lies on the grid of the mask, or several do.
    """
    _needed()
    found: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*") if path.is_dir() else path.parent.iterdir()):
        if file.is_file() and (header := _header(file)) is not None and header.get("Modality") == "CT":
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(file)
    if series and series in found:
        return found[series]
    fitting = [files for files in found.values() if _fits(mask, files, path)]
    if len(fitting) != 1:
        raise SAMMixError(f"{path}: {len(fitting)} CT series lie on the mask's grid; name one with --series UID")
    return fitting[0]


def _fits(mask: sitk.Image, files: Sequence[Path], path: Path) -> bool:
    try:
        return bool(_on_grid(mask, files, path))
    except (SAMMixError, AttributeError):  # an image without position is none of the mask's
        return False


def check_sources(path: Path) -> None:
    """Make sure, before the long work, that a DICOM SEG can refer to what is at `path`.

    Raises:
        SAMMixError: highdicom is missing, or the scan is not DICOM.
    """
    _needed()
    if not path.exists():
        raise SAMMixError(f"{path}: no such file or folder")
    if path.is_file() and not is_dicom(path):
        raise SAMMixError(f"{path}: a DICOM SEG refers to DICOM images, which this is not; choose .nii.gz or .seg.nrrd")


def check_output(path: Path, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Make sure, before the long work, that a DICOM file can be written to ``path`` and destroys nothing.

    Raises:
        SAMMixError: see :func:`SAMMixLib.imaging.writing.check_replaceable`; or what is there is not ours, and
            `overwrite` is off.
    """
    check_replaceable(path, inputs)
    if path.exists() and not overwrite:
        header = _header(path)
        if header is None or header.get("Manufacturer") != MAKER:
            raise SAMMixError(f"{path}: is there and not written by SAMMix; choose another name, or add --overwrite")


def write_segmentation(mask: sitk.Image, path: Path, sources: Sequence[Path], structure: Structure, model: str) -> None:
    """Write a binary DICOM SEG with one segment; it appears whole or not at all.

    It refers to each source instance, lies in their frame of reference, says in SNOMED CT what the segment is, and
    names this program and the model as the algorithm. An empty mask gives a SEG whose frames are all empty.

    Args:
        mask: on the grid that :func:`SAMMixLib.imaging.dicom.read_series` made of the sources.
        sources: the files of the one series.
        model: name of the model.

    Raises:
        SAMMixError: highdicom is missing, the sources do not lie on the mask's grid, or the file cannot be written.
    """
    _needed()
    import highdicom

    images, places = _on_grid(mask, sources, path)
    array = sitk.GetArrayViewFromImage(mask)
    frames = np.stack([array[k] for k in places]).astype(np.uint8)
    segmentation = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(structure, model)],
        series_instance_uid=highdicom.UID(),
        series_number=_series_number(images[0], 1),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=PRODUCT,
        software_versions=__version__,
        device_serial_number="0",
        content_label="SAMMIX",
        content_description=f"{structure.name} by SAM-Mix, model {model}"[:64],
        series_description=f"SAM-Mix {structure.name}"[:64],
        omit_empty_frames=bool(frames.any()),
    )
    _save(segmentation, path)


def write_measurements(segmentation: Path, path: Path, sources: Sequence[Path]) -> None:
    """Write a measurement report (TID 1500) with the volume of a segmentation's one segment.

    Args:
        segmentation: a file of :func:`write_segmentation`.
        sources: the files that it was made with.

    Raises:
        SAMMixError: highdicom is missing, or the file cannot be written.
    """
    _needed()
    import highdicom
    from highdicom import sr
    from pydicom.sr.codedict import codes

    images = _headers(sources)
    found = highdicom.seg.segread(segmentation)
    segment = found.get_segment_description(1)
    volume = sr.Measurement(
        name=codes.SCT.Volume,
        value=round(_volume_ml(found), 3),
        unit=sr.CodedConcept("ml", "UCUM", "milliliter"),
        algorithm_id=sr.AlgorithmIdentification(name=ALGORITHM, version=__version__),
    )
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=found.SOPClassUID,
            sop_instance_uid=found.SOPInstanceUID,
            segment_number=1,
            source_series=sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
        ),
        finding_type=sr.CodedConcept.from_code(segment.segmented_property_type),
        measurements=[volume],
    )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=highdicom.UID(), name=PRODUCT, manufacturer_name=MAKER, model_name=PRODUCT, serial_number="0"
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = sr.Comprehensive3DSR(
        evidence=[*images, found],
        content=report,
        series_number=_series_number(images[0], 2),
        series_instance_uid=highdicom.UID(),
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
        is_final=False,
        series_description="SAM-Mix measurements",
    )
    _save(document, path)


def _segment(structure: Structure, model: str) -> Any:
    import highdicom
    from pydicom.sr.coding import Code

    def code(value: str, meaning: str) -> Code:
        return Code(value, "SCT", meaning)

    color = highdicom.color.CIELabColor.from_rgb(*structure.color)
    return highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=structure.name,
        segmented_property_category=code(*structure.category),
        segmented_property_type=code(structure.code, structure.code_meaning),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=ALGORITHM,
            family=Code("123109", "DCM", "Artificial Intelligence"),
            version=__version__,
            source=MAKER,
            parameters={"model": model},
        ),
        anatomic_regions=[code("10200004", "Liver")] if structure.category == ALTERED else None,
        tracking_uid=highdicom.UID(),
        tracking_id=structure.name,
        display_color=color,
    )


def _on_grid(mask: sitk.Image, sources: Sequence[Path], path: Path) -> tuple[list[Dataset], list[int]]:
    """One source image for each slice of the mask, by position, and the slices' numbers."""
    found: dict[int, Dataset] = {}
    for header, file in zip(_headers(sources), sources, strict=True):
        where = np.array(mask.TransformPhysicalPointToContinuousIndex([float(v) for v in header.ImagePositionPatient]))
        k = round(where[2])
        size = (header.Columns, header.Rows)
        if np.abs(where - (0, 0, k)).max() > 2 * SAME_VOXEL or size != mask.GetSize()[:2]:
            raise SAMMixError(f"{path}: the mask is not on the grid of {file}; a DICOM SEG takes that of its images")
        found.setdefault(k, header)
    if sorted(found) != list(range(mask.GetSize()[2])):
        raise SAMMixError(f"{path}: {len(found)} source images for {mask.GetSize()[2]} slices; give the whole series")
    return [found[k] for k in sorted(found)], sorted(found)


def _headers(sources: Sequence[Path]) -> list[Dataset]:
    """The headers of a series, with the UIDs that careless anonymisation has emptied.

    Those of an instance stand in the file's own preamble still. Study and series get one made of the instances', the
    same each time.
    """
    import highdicom

    headers: list[Dataset] = [parse(file, stop_before_pixels=True) for file in sources]
    for header in headers:
        header.SOPInstanceUID = header.get("SOPInstanceUID") or header.file_meta.MediaStorageSOPInstanceUID
        header.SOPClassUID = header.get("SOPClassUID") or header.file_meta.MediaStorageSOPClassUID
    instances = sorted(header.SOPInstanceUID for header in headers)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        made = highdicom.UID.from_uuid(str(uuid5(NAMESPACE_OID, f"{name} {' '.join(instances)}")))
        for header in headers:
            setattr(header, name, header.get(name) or made)
    return headers


def _volume_ml(found: Any) -> float:
    """Voxels of the segment times their size, as the SEG itself says it."""
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    rows, columns = (float(step) for step in measures.PixelSpacing)
    between = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    return float(np.count_nonzero(found.pixel_array)) * rows * columns * between / 1000


def _series_number(image: Dataset, offset: int) -> int:
    """A number beside that of the CT, which viewers sort by."""
    return 1000 + 10 * int(image.get("SeriesNumber") or 0) % 100000 + offset


def _save(dataset: Any, path: Path) -> None:
    try:
        with atomic(path) as beside:
            dataset.save_as(beside, enforce_file_format=True)
    except OSError as error:
        raise SAMMixError(f"{path}: not written ({error.strerror}); free some disk space") from None


def _header(file: Path) -> Any:
    try:
        return parse(file, stop_before_pixels=True, specific_tags=["Modality", "SeriesInstanceUID", "Manufacturer"])
    except Exception:  # pydicom raises what its parsers raise
        return None


def _needed() -> None:
    """Raises SAMMixError where the extra is missing."""
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError as error:
        raise SAMMixError(f"DICOM SEG needs the package {error.name}; run: pip install sammix[dicom]") from None
