"""Backends among the installed distributions: found in their metadata, imported only when one is selected."""

from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version

from rolecall.errors import BackendError

GROUP = "rolecall.backends"
"""The entry-point group that a plugin registers its backend under."""
IN_CHECKOUT = ("mlflow", "tensorboard", "wandb")
"""Backends whose plugins are developed with rolecall, in `plugins/` of its checkout."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A distribution that provides a backend, and what its metadata says."""

    point: EntryPoint
    name: str
    version: str
    requires: tuple[str, ...]


def find_installed() -> dict[str, list[Provider]]:
    """Who provides each installed backend, by the backend's name.

    Scans the metadata of all installed distributions, so call it once.
    """
    found: dict[str, dict[str, Provider]] = {}
    known: dict[Distribution, tuple[str, str, tuple[str, ...]]] = {}
    for point in entry_points(group=GROUP):
        if point.dist is None:
            raise BackendError(f"backend {point.name!r}: its entry point {point.value!r} belongs to no distribution")
        # Parsed anew at each question, and one distribution may have many backends.
        if point.dist not in known:
            metadata = point.dist.metadata
            known[point.dist] = (metadata["Name"], metadata["Version"], tuple(point.dist.requires or ()))
        provider = Provider(point, *known[point.dist])
        # A directory that is twice on sys.path shows a distribution twice.
        found.setdefault(point.name, {}).setdefault(provider.name, provider)
    return {name: list(providers.values()) for name, providers in found.items()}


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution; `None` if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def install_hint(name: str) -> str:
    """The command that installs one of `IN_CHECKOUT`."""
    # Not a name on a package index: they are not published, and somebody else's package might have it.
    return f"install it from a checkout of rolecall: pip install ./plugins/rolecall-{name}"


def import_backend(provider: Provider, versions: dict[str, str | None]) -> object:
    """Import the plugin's module or object, after checking that what its distribution requires is installed.

    `versions` keeps what is known of the distributions that backends require: most require the same few.

    Raises:
        BackendError: its SDK is missing or too old, or it cannot be imported, whatever it raises.
    """
    point = provider.point
    who = f"backend {point.name!r}: {provider.name} {provider.version}"
    if unmet := _unmet_requirements(provider, versions):
        versions.clear()  # whoever installs what is missing may try again in this process
        # rolecall itself is not published either
        is_ours = any(requirement.startswith("rolecall") for requirement in unmet)
        wanted = " ".join(f"'{requirement}'" for requirement in unmet)
        fix = install_hint(point.name) if is_ours and point.name in IN_CHECKOUT else f"run: pip install {wanted}"
        raise BackendError(f"{who} needs {'; '.join(unmet.values())}. To fix it, {fix}")
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a plugin may do anything when it is imported, `sys.exit` included
        what = f"cannot be imported ({point.value}): {type(error).__name__}: {error}"
        fix = _remedy(provider, error)
        raise BackendError(f"{who} {what}. {fix}; or choose another monitor_type") from error


def _remedy(provider: Provider, error: BaseException) -> str:
    """What to do about a plugin that cannot be imported."""
    point, name = provider.point, provider.name
    missing = (error.name or "") if isinstance(error, ImportError) else ""
    if missing.partition(".")[0] == "rolecall":
        return f"It was written for another version of rolecall than {version_of('rolecall')}: install one that fits it"
    if point.name in IN_CHECKOUT:
        return f"To fix it, {install_hint(point.name)}"
    if missing and f"{point.module}.".startswith(f"{missing}."):
        return f"Its files are incomplete: reinstall {name}"
    if missing and isinstance(error, ModuleNotFoundError):
        return f"It needs the module {missing}, and does not say so in its requirements: install what provides it"
    return f"This is a bug in {name}, or it was installed in part: reinstall it, and report it to its authors"


def _unmet_requirements(provider: Provider, versions: dict[str, str | None]) -> dict[str, str]:
    """What the distribution requires and this environment lacks, its SDK included, and why. Imports none of it."""
    # packaging takes a tenth of the time of `import rolecall`; a role without plugins never needs it
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion, Version

    unmet = {}
    for text in provider.requires:
        # The benefit of the doubt: what was written for an older pip, and a version that somebody made up.
        with suppress(InvalidRequirement, InvalidVersion):
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            requirement.marker = None  # it holds, and is not part of what pip is to install
            if requirement.name not in versions:
                versions[requirement.name] = version_of(requirement.name)
            found = versions[requirement.name]
            if found is None or not requirement.specifier.contains(Version(found), prereleases=True):
                reason = "which is not installed" if found is None else f"but {found} is installed"
                unmet[str(requirement)] = f"{requirement.name}{requirement.specifier}, {reason}"
    return unmet
