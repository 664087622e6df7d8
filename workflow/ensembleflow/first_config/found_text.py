"""What was found in a folder of images, as lines for a terminal."""

from __future__ import annotations

from ensembleflow.datasets.some import some
from ensembleflow.first_config.choices import Dataset, counted, is_unbalanced
from ensembleflow.first_config.fingerprint import Fingerprint

__all__ = ["advice_lines", "found_lines"]

_LABEL_WIDTH = 12
_STRETCHED = 1.5
_LARGE = 4
_FEW_OF_A_CLASS = 20
_FEW_VALID = 100


def found_lines(fingerprint: Fingerprint) -> list[str]:
    """A line or more for each thing that was found."""
    found = fingerprint
    least, most = found.class_counts[found.smallest_class], found.class_counts[found.largest_class]
    low, median, high = found.sides
    (width, height), (wide, tall) = found.widths_and_heights
    rows = [
        ("images", f"{found.n_images:,}{_groups(found)}; {_looked_at(found)}"),
        (
            "classes",
            f"{len(found.class_counts)}, of {least:,} ({found.smallest_class}) to {most:,} images "
            f"({found.largest_class}): {found.imbalance:,.1f} times as many",
        ),
        ("parts", _parts(found)),
        (
            "sizes",
            f"all {width}x{height} pixels"
            if (width, height) == (wide, tall)
            else f"longer side {low} to {high} pixels, median {median}; "
            f"{width} to {wide} wide, {height} to {tall} high",
        ),
        ("kinds", ", ".join(f"{n:,} {kind}" for kind, n in found.kinds.items()) + _grey(found)),
        ("copies", _copies(found)),
        ("unreadable", f"{len(found.unreadable):,}" if found.unreadable else "none"),
    ]
    lines = [f"  {label:<{_LABEL_WIDTH}}{text}" for label, text in rows]
    told = found.unreadable[:10]
    lines += [f"  {'':<{_LABEL_WIDTH}}{line}" for line in told]
    if len(found.unreadable) > len(told):
        lines.append(f"  {'':<{_LABEL_WIDTH}}and {len(found.unreadable) - len(told)} more")
    return lines


def advice_lines(fingerprint: Fingerprint, dataset: Dataset) -> list[str]:
    """What a person should know of these images, beside the choices; none where all is well."""
    found, lines = fingerprint, []
    few = [name for name, n in found.class_counts.items() if n < _FEW_OF_A_CLASS]
    if few:
        lines.append(
            f"fewer than {_FEW_OF_A_CLASS} images: {some(few)}; what is measured of such a class hangs on a few images"
        )
    if is_unbalanced(found):
        lines.append("the classes are unbalanced: networks are ranked by macro F1 and trained with balanced weights")
    if dataset.n_valid < _FEW_VALID:
        lines.append(
            f"about {dataset.n_valid} images validate, so one of them is {100 / dataset.n_valid:.1f} % of the error"
        )
    if found.sides[1] > _LARGE * found.image_size:
        pixels = found.sides[1] / found.image_size
        lines.append(
            f"at {found.image_size}x{found.image_size}, details of less than {pixels:.0f} pixels vanish: crop the "
            "images, or raise dataset.image_size, if the classes differ in such"
        )
    if found.stretched > _STRETCHED:
        lines.append("most images are far from square and are stretched to be so: crop them if proportions matter")
    if found.n_contradicting:
        told = f"{found.n_contradicting:,} images are identical to one of another class, so one of the two is wrong"
        lines.append(told)
    return lines


def _looked_at(found: Fingerprint) -> str:
    if found.n_decoded == found.n_images:
        return "all were read"
    opened = f"sizes and kinds are of {found.n_opened:,} of them, drawn at random"
    return f"{opened}; copies and unreadable files were looked for among {found.n_decoded:,}"


def _groups(found: Fingerprint) -> str:
    return "" if found.n_groups is None else f" in {found.n_groups:,} groups"


def _parts(found: Fingerprint) -> str:
    if not found.parts:
        return "none: they are to be split"
    return ", ".join(f"{n:,} {part}" for part, n in found.parts.items())


def _grey(found: Fingerprint) -> str:
    return "" if found.has_colour or [*found.kinds] == ["grey"] else "; no image has any colour"


def _copies(found: Fingerprint) -> str:
    if not found.n_copies:
        return f"none, at {found.image_size}x{found.image_size} pixels"
    pairs = f"{some(found.copies)}{', …' if found.n_copies > len(found.copies) else ''}"
    return f"{counted(found.n_copies, 'image is', 'images are')} identical to another one: {pairs}"
