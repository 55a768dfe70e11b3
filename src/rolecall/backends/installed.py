"""Backends among the installed distributions: found by their metadata, imported only when one is selected."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING

from rolecall.errors import BackendError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["GROUP", "brought_by", "import_backend", "installed_names", "points", "version_of"]

GROUP = "rolecall.backends"


def installed_names() -> set[str]:
    """The `monitor_type` of every backend that a distribution brings."""
    return {point.name for point in entry_points(group=GROUP)}


def points(name: str) -> list[EntryPoint]:
    """The entry points of one name, one for each distribution (a path listed twice shows one twice)."""
    return list({brought_by(point).name: point for point in entry_points(group=GROUP, name=name)}.values())


def brought_by(point: EntryPoint) -> Distribution:
    """The distribution that an entry point comes from."""
    if point.dist is None:
        raise BackendError(
            f"backend {point.name!r}: its entry point {point.value!r} belongs to no distribution"
        )
    return point.dist


def version_of(distribution: str) -> str | None:
    """The version that is installed, `None` if there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def import_backend(point: EntryPoint) -> object:
    """The plugin's module or object, once what its distribution requires is known to be there.

    Raises:
        BackendError: its SDK is missing or too old, or it cannot be imported, whatever it raises.
    """
    dist = brought_by(point)
    who = f"backend {point.name!r}: {dist.name} {dist.version}"
    if lacking := list(_lacking(dist)):
        raise BackendError(
            f"{who} needs {'; '.join(lacking)}. Mend it with: pip install --upgrade {dist.name}"
        )
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise BackendError(
            f"{who} cannot be imported ({point.value}): {type(error).__name__}: {error}. Mend it with: "
            f"pip install --force-reinstall {dist.name}; or choose another monitor_type"
        ) from error


def _lacking(dist: Distribution) -> Iterator[str]:
    """What the distribution requires and this environment lacks, SDK included, without importing anything."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in dist.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # written for an older pip: what it asks for cannot be told
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = version_of(requirement.name)
            if found is None:
                yield f"{requirement.name}{requirement.specifier}, which is not installed"
            elif not _fits(requirement, found):
                yield f"{requirement.name}{requirement.specifier}, but {found} is installed"


def _fits(requirement: Requirement, found: str) -> bool:
    """Whether a version will do; one that says nothing, as of somebody's own build, is given a chance."""
    from packaging.version import InvalidVersion, Version

    try:
        return requirement.specifier.contains(Version(found), prereleases=True)
    except InvalidVersion:
        return True
