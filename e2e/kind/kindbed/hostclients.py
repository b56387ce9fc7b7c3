"""The machine's settings of apt, npm and pip, handed to image builds without becoming part of an image.

Mirrors, proxies and certificate authorities differ from machine to machine. A build sees them through
read-only mounts; the image keeps nothing of them.
"""

import os
import shlex
import shutil
from pathlib import Path

from kindbed.console import TestBedError, output_of
from kindbed.paths import cache_dir

BUNDLE_IN_BUILD = "/run/host-clients/ca-certificates.crt"

_APT_PREFIXES = ("Acquire::http", "Acquire::ftp", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIP")
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def build_mounts() -> list[str]:
    """`-v` arguments for `podman build`: apt's, npm's and pip's settings and the machine's CA bundle."""
    folder = cache_dir() / "host-clients"
    folder.mkdir(exist_ok=True)
    mounts: dict[str, str] = {}
    bundle = _ca_bundle()
    if bundle:
        mounts[BUNDLE_IN_BUILD] = bundle
    mounts["/etc/apt/apt.conf.d/99host-clients"] = _write(folder / "apt.conf", _apt_settings(bundle))
    pip_lines, pip_folders = _pip_settings(bundle)
    mounts["/etc/pip.conf"] = _write(folder / "pip.conf", pip_lines)
    mounts.update({path: path for path in pip_folders})
    # No place of npm's own: the builds name it (`npm ci --globalconfig`).
    mounts["/etc/npmrc"] = _write(folder / "npmrc", _npm_settings(bundle))
    return [word for target, source in mounts.items() for word in ("-v", f"{source}:{target}:ro")]


def debian_mirrors(suite: str) -> list[str]:
    """Lines of sources.list for a Debian suite from the mirrors that this machine uses; [] when unknown."""
    if not shutil.which("apt-get"):
        return []
    form = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(CODENAME)"
    rows = output_of(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines()
    lines: list[str] = []
    for row in sorted(set(rows)):
        uri, origin, label, codename = row.split("|")
        if origin != "Debian":
            continue
        if label == "Debian-Security":
            lines.append(f"deb {uri} {suite}-security main")
        elif codename.endswith("-updates"):
            lines.append(f"deb {uri} {suite}-updates main")
        elif "-" not in codename:
            lines.insert(0, f"deb {uri} {suite} main")
    return list(dict.fromkeys(lines))


def _ca_bundle() -> str | None:
    named = os.environ.get("SSL_CERT_FILE")
    return next((path for path in (named, *_BUNDLES) if path and Path(path).is_file()), None)


def _apt_settings(bundle: str | None) -> list[str]:
    lines = []
    if bundle:
        lines.append(f'Acquire::https::CAInfo "{BUNDLE_IN_BUILD}";')
    if shutil.which("apt-config"):
        dump = output_of(["apt-config", "dump"]).splitlines()
        lines += [line for line in dump if line.startswith(_APT_PREFIXES) and "CAInfo" not in line]
    return lines


def _pip_settings(bundle: str | None) -> tuple[list[str], list[str]]:
    """pip.conf for a build, and the local folders of packages it refers to."""
    settings: dict[str, str] = {}
    if shutil.which("pip"):
        try:
            listing = output_of(["pip", "config", "list"]).splitlines()
        except TestBedError:
            listing = []
        # Lines read `section.name='value'`; the variables of the environment come last and win, as in pip.
        for line in sorted(listing, key=lambda line: line.startswith(":env:")):
            key, _, value = line.partition("=")
            name = key.rpartition(".")[2]
            settings[name] = "\n".join(shlex.split(value)).replace("\\n", "\n")
    settings.pop("cert", None)
    if bundle:
        settings["cert"] = BUNDLE_IN_BUILD
    folders: list[str] = []
    if "find-links" in settings:
        links = settings["find-links"].split()
        folders = [link for link in links if Path(link).is_dir() and any(Path(link).iterdir())]
        remote = [link for link in links if "://" in link]
        settings["find-links"] = " ".join([*folders, *remote])
        if not settings["find-links"]:
            del settings["find-links"]
    body = [f"{name} = {value.replace(chr(10), ' ')}" for name, value in sorted(settings.items())]
    return ["[global]", *body], folders


def _npm_settings(bundle: str | None) -> list[str]:
    lines = [f"cafile={BUNDLE_IN_BUILD}"] if bundle else []
    if shutil.which("npm"):
        settings = {
            key: output_of(["npm", "config", "get", key]).strip()
            for key in ("registry", "proxy", "https-proxy")
        }
        lines += [
            f"{key}={value}" for key, value in settings.items() if value not in ("", "null", "undefined")
        ]
    return lines


def _write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)
