"""Look for known weaknesses: bandit in our code, pip-audit in what we need: python .ci/scan.py

bandit needs nothing but the tree. pip-audit asks a database; where that cannot be had, this says so and does not fail,
for nothing is known then.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def in_code() -> int:
    """The exit status of bandit: 0 if it finds nothing of medium severity or more."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--severity-level", "medium", "--recursive", "src", ".ci"]
    return subprocess.run(command, cwd=ROOT).returncode


def in_packages() -> int:
    """1 if the database knows a vulnerability of what requirements.txt pins, else 0."""
    options = ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "-r", "requirements.txt", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return judged(done.stdout)


def judged(said: str) -> int:
    """What the JSON of pip-audit means, in words on stdout; 1 if there are vulnerabilities."""
    try:
        found = json.loads(said)["dependencies"]
    except ValueError:
        print("pip-audit: no answer; nothing is known of the packages")
        return 0
    known = [package for package in found if "vulns" in package]
    without = "" if len(known) == len(found) else "; its database does not know or could not be asked about the others"
    print(f"pip-audit: looked up {len(known)} of {len(found)} packages{without}")
    bad = [(package, vulnerability) for package in known for vulnerability in package["vulns"]]
    for package, vulnerability in bad:
        mended = ", ".join(vulnerability["fix_versions"]) or "no release yet"
        print(f"  {package['name']} {package['version']}: {vulnerability['id']}, mended in {mended}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(in_code() or in_packages())
