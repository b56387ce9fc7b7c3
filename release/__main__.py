"""`make version`, `make release`, `make release-check`, and what the release workflow asks."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from kindbed.console import TestBedError

from . import build, compare, version


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it worked, 1 after a sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        done: int = options.run(options)
    except (version.ReleaseError, TestBedError) as problem:
        print(f"release: {problem}", file=sys.stderr)
        return 1
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    say = commands.add_parser("version", help="say another version everywhere and date the changelog")
    say.add_argument("version")
    say.set_defaults(run=_version)

    make = commands.add_parser("build", help="build what a release publishes")
    make.add_argument("output", type=Path)
    make.set_defaults(run=_build)

    twice = commands.add_parser("check", help="build twice and compare")
    twice.add_argument("folder", type=Path)
    twice.set_defaults(run=_check)
    for command in (make, twice):
        command.add_argument(
            "--images", default=",".join(build.images()), help="names, separated by commas; or ''"
        )
        command.add_argument(
            "--base-image", help="Debian image below all others; default: made from packages"
        )

    tag = commands.add_parser("tag", help="print the version of a tag, if checkout and changelog have it")
    tag.add_argument("tag")
    tag.set_defaults(run=_tag)

    notes = commands.add_parser("notes", help="print what the changelog tells of a version")
    notes.add_argument("version")
    notes.set_defaults(run=_notes)
    return parser


def _version(options: argparse.Namespace) -> int:
    version.write(options.version, datetime.now(UTC).date())
    return 0


def _build(options: argparse.Namespace) -> int:
    build.build(options.output, _images(options), options.base_image)
    print(options.output / build.SUMS)
    return 0


def _check(options: argparse.Namespace) -> int:
    folders = [options.folder / name for name in ("first", "second")]
    for folder in folders:
        build.build(folder, _images(options), options.base_image)
    found = compare.compare(*folders)
    print(compare.table(found))
    return 0 if all(item.identical or item.may_differ for item in found) else 1


def _tag(options: argparse.Namespace) -> int:
    print(version.check_tag(options.tag))
    return 0


def _notes(options: argparse.Namespace) -> int:
    print(version.changes(options.version))
    return 0


def _images(options: argparse.Namespace) -> list[str]:
    return [name for name in options.images.split(",") if name]


if __name__ == "__main__":
    sys.exit(main())
