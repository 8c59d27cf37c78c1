"""A domain written as a folder of images: class/image."""

from __future__ import annotations

from pathlib import Path

from ..core import Count, DgpruneError, Domain, at_home, public


@public
def to_folder(domain: Domain, folder: str | Path, *, split: str = "train", images: Count | None = None) -> None:
    """Write images of a domain as PNG files `folder/class/row.png`, which `from_folder` reads as one domain.

    Channels beyond 8 bits are rounded to 8.

    Args:
        domain: a domain with labels.
        folder: a new or empty folder; several domains go side by side into one folder.
        split: the split whose images are written.
        images: only the first `images` images of the split; None for all.

    Raises:
        DgpruneError: no labels, no such split, a class whose name cannot be that of a folder, or a folder that holds
            something.
    """
    from torchvision.utils import save_image

    path = at_home(folder)
    if domain.labels is None:
        raise DgpruneError(f"domain {domain.name!r} has no labels, so no class folder for its images.")
    rows = domain.rows(split, images)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DgpruneError(f"folder {str(path)!r} is not empty; give a new one.")
    names = {domain.class_label(int(label)) for label in domain.labels[rows]}
    if odd := [name for name in names if name.startswith(".") or Path(name).name != name or "\\" in name]:
        raise DgpruneError(f"the class {odd[0]!r} cannot be the name of a folder; name the classes otherwise.")
    for image, row in zip(domain.take(rows).images, rows.tolist(), strict=True):
        kind = path / domain.class_label(int(domain.labels[row]))
        kind.mkdir(parents=True, exist_ok=True)
        save_image(image, kind / f"{row}.png")
