#!/usr/bin/env python3
"""What Sirocco is built from, as dpkg knows it on this machine.

usage: dependencies.py --page FILE            a Markdown page: name, version, licences, how it is used
       dependencies.py --check FILE           1: the page does not name what the build uses
       dependencies.py --sbom FILE --bundle ARCHIVE
                                              CycloneDX 1.5, of an archive that deploy/bundle made

The libraries are those of third_party/bazel/system_libs.bzl. Nothing here depends on when or where it
runs, only on the packages that are installed.
"""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import uuid

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
NOT_SERVED = {"libbenchmark-dev"}  # of measurements alone
MACHINE = ("libstdc++6", "libgcc-s1", "libc6")  # what a bundle takes from where it runs
# Debian's short names -> SPDX's, where they differ.
SPDX = {"expat": "MIT", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause",
        "apache-2.0": "Apache-2.0", "zlib": "Zlib", "bsl-1.0": "BSL-1.0", "cc0": "CC0-1.0"}
# Of packages whose copyright file is prose: read by people.
READ = {"libc-ares-dev": ["MIT"], "libc6": ["LGPL-2.1-or-later"],
        "libgcc-s1": ["GPL-3.0-or-later WITH GCC-exception-3.1"],
        "libstdc++6": ["GPL-3.0-or-later WITH GCC-exception-3.1"]}


def system_libraries():
    """(name, packages, "static", "shared" or "headers") of each library the server is linked with."""
    with open(os.path.join(ROOT, "third_party/bazel/system_libs.bzl"), encoding="utf-8") as file:
        text = file.read()
    entries = re.findall(r'"(\w+)": struct\((.*?)\),\n', text, re.S)
    out = []
    for name, body in entries:
        package = re.search(r'package = "([^"]+)"', body).group(1)
        if package in NOT_SERVED:
            continue
        use = ("shared" if "shared =" in body else
               "headers" if re.search(r"static = \[\]", body) else "static")
        out.append((name, package, use))
    assert len(out) > 10, "system_libs.bzl is not what this script reads"
    return out


def dpkg(package):
    """(source package, version, homepage)"""
    line = subprocess.run(
        ["dpkg-query", "-W", "-f", "${source:Package}\t${Version}\t${Homepage}\t${Architecture}\n",
         package], check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()[0]
    return line.split("\t")


def licences(package):
    """The licences that the package's copyright file names, Debian's own files left out."""
    path = f"/usr/share/doc/{package}/copyright"
    with open(path, encoding="utf-8", errors="replace") as file:
        paragraphs = re.split(r"\n\s*\n(?=\S)", file.read())
    found = []
    for paragraph in paragraphs:
        files = re.search(r"^Files:(.*?)(?=^\S)", paragraph, re.S | re.M)
        licence = re.search(r"^License:[ \t]*(\S.*)$", paragraph, re.M)
        if not files or not licence or all(
                f.startswith("debian/") for f in files.group(1).split()):
            continue
        name = licence.group(1).strip()
        name = SPDX.get(name.lower(), name)
        if name not in found:
            found.append(name)
    return found or READ.get(package) or [f"see {path}"]


class Dependency:
    def __init__(self, package, use, names):
        self.package, self.use, self.names = package, use, names
        self.source, self.version, self.homepage, self.architecture = dpkg(package)
        self.licences = licences(package)


def dependencies():
    by_package = {}
    for name, package, use in system_libraries():
        by_package.setdefault(package, (use, []))[1].append(name)
    found = [Dependency(package, use, names) for package, (use, names) in by_package.items()]
    found += [Dependency(package, "machine", []) for package in MACHINE]
    return sorted(found, key=lambda d: d.package)


USES = {
    "static": "linked into the program",
    "shared": "a shared library in the bundle",
    "headers": "compiled in (headers alone)",
    "machine": "the machine's own at run time",
}


def page(found):
    lines = [
        "# What Sirocco is built from",
        "",
        "Made by `deploy/tools/dependencies.py --page third_party/DEPENDENCIES.md` from the Debian 12",
        "packages of a build machine; do not edit. Licences are those that a package's copyright file",
        "names for its files (parts that are not linked too). An archive's own list, with its versions,",
        "is the CycloneDX file that `deploy/bundle` leaves beside it.",
        "",
        "| package | version | licences | how it is used |",
        "|---|---|---|---|",
    ]
    for d in found:
        name = f"[`{d.package}`]({d.homepage})" if d.homepage else f"`{d.package}`"
        use = USES[d.use]
        lines.append(f"| {name} | {d.version} | {', '.join(d.licences)} | {use} |")
    lines += [
        "",
        "The CUDA backend, where it is built, also holds CUDA's static run-time library, and takes cuBLASLt",
        "and the driver from the machine (NVIDIA's licence). Google's `google/rpc` definitions",
        "(`third_party/googleapis`, Apache-2.0) and gRPC's health definition are compiled in.",
        "",
    ]
    return "\n".join(lines)


def named_in(text):
    return sorted(set(re.findall(r"^\| \[?`([^`]+)`", text, re.M)))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def version_of_sirocco():
    with open(os.path.join(ROOT, "server/api/version.h"), encoding="utf-8") as file:
        return re.search(r'kVersion\[?\]? *= *"([^"]+)"', file.read()).group(1)


def sbom(found, archive):
    """What is in the archive: its files with digests, and what they were made from."""
    version, archive_digest = version_of_sirocco(), digest(archive)
    files = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.split("/")[1] in ("bin", "lib"):
                content = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
                files.append({"type": "file", "name": member.name,
                              "hashes": [{"alg": "SHA-256", "content": content}]})
    libraries = [{
        "type": "library", "bom-ref": d.package, "name": d.package, "version": d.version,
        "purl": f"pkg:deb/debian/{d.package}@{d.version}?arch={d.architecture}&distro=bookworm",
        "licenses": [{"license": {"id": name} if name in SPDX.values() else {"name": name}}
                     for name in d.licences],
        "properties": [{"name": "sirocco:use", "value": USES[d.use]},
                       {"name": "debian:source", "value": d.source}],
    } for d in found]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, archive_digest)}",
        "metadata": {"component": {
            "type": "application", "bom-ref": "sirocco", "name": "sirocco", "version": version,
            "hashes": [{"alg": "SHA-256", "content": archive_digest}],
        }},
        "components": files + libraries,
        "dependencies": [{"ref": "sirocco", "dependsOn": [d.package for d in found]}],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--page")
    parser.add_argument("--check")
    parser.add_argument("--sbom")
    parser.add_argument("--bundle")
    args = parser.parse_args()
    found = dependencies()
    if args.page:
        with open(args.page, "w", encoding="utf-8") as file:
            file.write(page(found))
    if args.check:
        with open(args.check, encoding="utf-8") as file:
            written = named_in(file.read())
        used = sorted(d.package for d in found)
        if written != used:
            print(f"{args.check} names {written}; the build uses {used}: make it anew by "
                  "deploy/tools/dependencies.py --page", file=sys.stderr)
            return 1
    if args.sbom:
        with open(args.sbom, "w", encoding="utf-8") as file:
            json.dump(sbom(found, args.bundle), file, indent=1, sort_keys=True)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
