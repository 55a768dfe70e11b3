"""The backend as a guest of other people's processes and disks: hooks, arguments, secrets, files."""

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from rolecall.config.redact import is_secret_name
from rolecall.rows import MediaKind
from rolecall.testing.author import ABILITIES, EXPECTED, READ, Contract
from rolecall.testing.builders import row
from rolecall.testing.children.nursery import BackendRaised, plain
from rolecall.testing.stage import Courier, Opened, Stage

QUICK: Final = 1.0
"""The seconds that a hook may take which runs in every role and in `rolecall check`."""
CANARY: Final = "canary-0f3c9a77d1e24b58"
KINDS: Final = get_args(MediaKind)
PROTOCOLS: Final = {
    "SupportsTables": "tables",
    "SupportsTableMedia": "table_media",
    "SupportsConfig": "config",
    "SupportsSummary": "summary",
    "SupportsTags": "tags",
    "SupportsEndTime": "end_time",
    "SupportsProgress": "progress",
    "SupportsConfirmation": "confirmation",
}
"""The ability that a run has if it has what the Protocol names."""
_HINT: Final = "to check it, name it in `can`; if it cannot be read back, name it in `cannot` with this reason"


class Hygiene(Contract):
    """Tests of what a backend does beside storing rows."""

    def test_is_listed_under_its_name(self, stage: Stage) -> None:
        names = stage.child(is_bare=True).call("names")
        assert self.monitor_type in names, f"expected {self.monitor_type!r} among the installed backends, held {names}"

    def test_says_which_hooks_it_has(self, stage: Stage) -> None:
        """So that a later rolecall calls it as the version says that it was written for; without a word, that is 1."""
        remark = stage.ask("remark")
        assert not remark, remark

    def test_loads_without_its_sdk(self, stage: Stage) -> None:
        """Listing, loading and checking a backend happen in processes that never log to it."""
        strange = stage.ask("strange_modules")
        assert strange == [], f"import these in open_run, prepare or open_readback: {', '.join(strange)}"

    def test_hooks_are_quick(self, stage: Stage) -> None:
        cost = stage.ask("hooks")
        slow = {hook: f"{seconds:.1f} s" for hook, seconds in cost["seconds"].items() if seconds > QUICK}
        assert slow == {}, f"expected less than {QUICK:g} s, held {slow}"
        assert cost["connections"] == [], f"expected no connection, held {cost['connections']}"

    def test_abilities_are_declared(self, stage: Stage) -> None:
        """What is claimed is there and can be read; what is there is claimed, or `cannot` says why not."""
        wrong = [*_misnamed(self.can, self.cannot), *_unread(self)]
        assert wrong == [], "; ".join(wrong)
        courier = stage.courier()
        run = courier.open(stage.ticket())
        there = _abilities(run) | ({"shared"} if stage.ask("supports_shared_run")["supported"] else set())
        courier.close()
        optional = there | {*PROTOCOLS.values(), "shared", "axes", "readback"} | {f"media:{kind}" for kind in KINDS}
        # A config that does not change comes with the ticket.
        missing = sorted((self.can & optional) - there - {"config", "tags", "end_time"})
        assert missing == [], f"`can` names what the backend does not have: {', '.join(missing)}"
        claims = "text" in self.cannot and run.holds_text
        assert not claims, "`cannot` names text, but the run claims to hold it: give it `holds_text = False`"
        silent = sorted(there - self.can - self.cannot.keys())
        assert silent == [], f"the backend has what `can` does not name: {', '.join(silent)}; {_HINT}"

    def test_arguments_are_checked(self, stage: Stage) -> None:
        found = stage.ask("arguments")
        assert not found["takes_unknown"], 'a misspelled argument must be an error: ConfigDict(extra="forbid")'
        bare = [name for name, is_secret in found["fields"].items() if is_secret_name(name) and not is_secret]
        assert bare == [], f"these must be pydantic.SecretStr: {', '.join(bare)}"

    def test_says_whether_it_shares(self, stage: Stage) -> None:
        said = stage.ask("supports_shared_run")
        wanted = "shared" in self.can
        assert said["supported"] is wanted, f"expected supported={wanted}, as `can` says, held {said}"
        assert said["supported"] or len(said["reason"].split()) > 2, (  # noqa: PLR2004 - words, not a code
            f"the reason tells a user what to change, held {said['reason']!r}"
        )

    def test_opened_run_is_whole(self, stage: Stage) -> None:
        courier = stage.courier()
        run = courier.open(stage.ticket(config={"lr": 0.1}, tags=("contract",)))
        assert isinstance(run.id, str), f"id: expected a string, held {run.id!r}"
        assert run.id, "id: expected the backend's name of the run, held an empty string"
        assert run.url is None or isinstance(run.url, str), f"url: expected a string or None, held {run.url!r}"
        assert set(run.media_kinds) <= set(KINDS), f"media_kinds: expected some of {KINDS}, held {run.media_kinds}"
        courier.deliver([row()])
        courier.close()

    def test_keeps_no_secret_in_a_file(self, stage: Stage, secrets: Sequence[str]) -> None:
        fields = [name for name, is_secret in stage.ask("arguments")["fields"].items() if is_secret]
        given = [str(plain(self_given)) for name in fields if (self_given := stage.args.get(name)) is not None]
        canaries = {name: f"{CANARY}-{name}" for name in fields if stage.args.get(name) is None}
        known = [*secrets, *given, *canaries.values()]
        if not known:
            pytest.skip("it has no argument that is a secret, and the fixture `secrets` names none")
        courier = _write_something(stage, {**stage.args, **canaries})
        found = [f"{path} has {what}" for path, what in _leaks(stage.root, known)]
        assert found == [], f"expected no secret in a file, held: {'; '.join(found)}"
        shown = f"{getattr(courier, 'run', '')}"
        assert not any(secret in shown for secret in known), "the run's id or url has a secret"

    def test_writes_in_its_folder_only(self, stage: Stage) -> None:
        courier = _write_something(stage, stage.args)
        places = [stage.directory, stage.root / "tmp", stage.root / "log", *_places(stage.args)]
        seen = {*map(Path, courier.child.call("footprint")), *_files(stage.root)}
        strange = [str(path) for path in sorted(seen) if not _is_in(path, places) and path not in places[0].parents]
        assert strange == [], f"expected files in {stage.directory} only, held also {strange}"

    def test_closes_twice(self, stage: Stage) -> None:
        """A courier calls `close` again, if it was not available at first."""
        courier = stage.courier()
        courier.open(stage.ticket())
        courier.deliver([row()])
        courier.close("failed")
        courier.close("failed")
        held = stage.points(stage.held_run(courier))
        assert list(held) == ["loss"], f"expected the key 'loss', held {held}"
        if "status" in self.can:
            status = stage.read("status", stage.held_run(courier))
            assert status == "failed", f"expected the status 'failed', held {status!r}"

    def test_says_when_it_is_unavailable(self, stage: Stage, unavailable_args: Mapping[str, Any] | None) -> None:
        """So that rolecall tries again, instead of giving the backend up."""
        if unavailable_args is None:
            pytest.skip("the fixture `unavailable_args` gives no arguments with which it cannot be reached")
        child = stage.child()
        ticket = stage.ticket()
        with pytest.raises(BackendRaised) as raised:
            child.call("open_run", name=self.monitor_type, args=unavailable_args, ticket=ticket)
        assert "Unavailable" in raised.value.kinds, f"expected Unavailable, held {raised.value}"


def _misnamed(can: frozenset[str], cannot: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the names of abilities."""
    known = {*ABILITIES, *(f"media:{kind}" for kind in KINDS)} - {"media:KIND"}
    if unknown := sorted(can - known):
        yield f"`can` names unknown abilities: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
    if unknown := sorted(cannot.keys() - known - set(EXPECTED)):
        known_too = ", ".join(sorted(known | set(EXPECTED)))
        yield f"`cannot` names unknown abilities: {', '.join(unknown)}; known: {known_too}"
    if both := sorted(can & cannot.keys()):
        yield f"`can` and `cannot` both name {', '.join(both)}"
    if bare := sorted(ability for ability, reason in cannot.items() if not reason.strip()):
        yield f"`cannot` gives no reason for {', '.join(bare)}"


def _unread(contract: Contract) -> Iterator[str]:
    """The readers that are needed and not written."""
    readers = {"points", *(ability for ability in contract.can if ability in READ)}
    readers |= {"media"} if any(ability.startswith("media:") for ability in contract.can) else set()
    readers |= {"tables"} if "table_media" in contract.can else set()
    kind = type(contract)
    for reader in sorted(name for name in readers if getattr(kind, name) is getattr(Contract, name)):
        yield f"write the reader {reader}(run)"


def _abilities(run: Opened) -> set[str]:
    """What a run and its backend have."""
    found = {PROTOCOLS[name] for name in run.protocols if name in PROTOCOLS}
    found |= {f"media:{kind}" for kind in run.media_kinds}
    return found | ({"axes"} if run.declares_axes else set()) | ({"readback"} if run.reads_back else set())


def _write_something(stage: Stage, args: Mapping[str, Any]) -> Courier:
    """A short run, in a process whose home is the test's. What refuses a made-up secret may do so."""
    courier = stage.courier({"HOME": str(stage.root / "home")})
    try:
        courier.open(stage.ticket(config={"lr": 0.1}), args)
        courier.deliver([row(seq=seq) for seq in range(1, 4)])
        courier.close()
    except BackendRaised:
        if args is stage.args:
            raise
    return courier


def _leaks(root: Path, secrets: Sequence[str]) -> Iterator[tuple[str, str]]:
    forms = {
        form: f"a secret{how}"
        for secret in secrets
        for form, how in (
            (secret.encode(), ""),
            (base64.b64encode(secret.encode()).rstrip(b"="), " in base64"),
            (base64.b64encode(f"api:{secret}".encode()).rstrip(b"="), " in base64"),
        )
    }
    for path in _files(root):
        if path.is_file():
            data = path.read_bytes()
            yield from ((str(path), what) for form, what in forms.items() if form in data)


def _files(root: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in names]


def _places(args: Mapping[str, Any]) -> Iterator[Path]:
    """Where the arguments themselves say that the backend writes."""
    for value in args.values():
        yield from map(Path, re.findall(r"(?:^|(?<=[/:=]))/[^\s?;,]+", str(value)))


def _is_in(path: Path, places: Sequence[Path]) -> bool:
    """Whether a file is in one of these folders, or beside one of these files with more in its name."""
    real = [os.path.realpath(place) for place in places]
    # Of a link in its folder, where it is, and not where it leads.
    name = os.path.join(os.path.realpath(path.parent), path.name)
    return name.startswith("/dev/") or any(
        name == place or name.startswith((f"{place}/", f"{place}-")) for place in real
    )
