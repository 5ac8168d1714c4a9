"""Laws of what the runtime is made of: each package pinned, hashed and under a licence that may ship with ours."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from importlib.metadata import PackageMetadata, distribution
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from groundglass.errors import ModelError
from groundglass.infer.model import PINNED, weights_folder

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = frozenset({"dicom", "web"})
# What each licence is called in the metadata of packages (SPDX identifiers stand for themselves).
_SPDX = {
    "Apache Software License": "Apache-2.0", "Apache 2.0": "Apache-2.0", "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause", "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}  # fmt: skip
_ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0",
    "Zlib",
}  # fmt: skip


def runtime() -> list[str]:
    """Every package that `pip install '.[dicom,web]'` brings here, by its canonical name."""
    seen: dict[str, set[str]] = {}
    open_ones = [("groundglass", set(EXTRAS))]
    while open_ones:
        name, extras = open_ones.pop()
        key = canonicalize_name(name)
        if key in seen and extras <= seen[key]:
            continue
        seen[key] = seen.get(key, set()) | extras
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in (*extras, "")):
                open_ones.append((needed.name, set(needed.extras)))
    return sorted(set(seen) - {"groundglass"})


def licence(metadata: PackageMetadata) -> str:
    """The licence that a package states, as an SPDX expression."""
    stated = metadata.get("License-Expression") or ""
    classified = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    words = (metadata.get("License") or "").strip()
    known = [_SPDX.get(text, text) for text in (*classified, words) if _SPDX.get(text, text) in _ALLOWED]
    return stated or (known[0] if known else words)


def _locked() -> list[str]:
    """The lines of requirements.txt, each with its hashes."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_every_package_of_the_runtime_is_locked_to_the_tested_version_with_its_hashes() -> None:
    pins = {line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    tested = {(canonicalize_name(p.split("==")[0]), p.split("==")[1].split(";")[0].strip()) for p in pins}
    locked: dict[str, set[str]] = {}
    for line in _locked():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
        found = Requirement(line.split(" --hash")[0].strip())
        locked.setdefault(canonicalize_name(found.name), set()).add(str(found.specifier).removeprefix("=="))
    assert set(runtime()) <= set(locked)
    here = {(name, version) for name, versions in locked.items() for version in versions if name in runtime()}
    assert here <= tested


def test_the_table_of_licences_lists_every_package_and_each_may_ship_with_ours() -> None:
    text = (ROOT / "docs/reference/dependencies.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([a-z0-9.-]+) \| ([A-Z0-9][^|]+) \|$", text, re.MULTILINE))
    stated = {name: licence(distribution(name).metadata) for name in runtime()}
    assert {name: rows.get(name) for name in stated} == stated
    assert set(rows) <= {canonicalize_name(Requirement(line.split(" --hash")[0].strip()).name) for line in _locked()}
    for expression in rows.values():
        assert set(re.split(r" (?:AND|OR) |[()]", expression)) <= _ALLOWED, expression


def test_the_networks_that_ship_and_the_encoder_that_is_trained_from_are_pinned_by_sha256(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.learn.nets import ct_encoder

    for name, digest in PINNED.items():
        assert hashlib.sha256((weights_folder() / f"{name}.onnx").read_bytes()).hexdigest() == digest
    (tmp_path / "w").write_bytes(b"other weights")
    monkeypatch.setattr(ct_encoder, "_weights_file", lambda: tmp_path / "w")
    with pytest.raises(ModelError, match="the pinned encoder"):
        ct_encoder.load_encoder(ct_encoder.make_encoder("ct-encoder-2.1"))


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_bill_of_materials_lists_the_networks_by_hash() -> None:
    listed = {c["name"]: c["hashes"] for c in _script("sbom").networks()}
    assert listed == {f"{n}.onnx": [{"alg": "SHA-256", "content": d}] for n, d in PINNED.items()}


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("", 0, "nothing is known"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "looked up 0 of 1"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "looked up 1 of 1 packages\n"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: CVE-1, mended in 2",
        ),
    ],
)
def test_a_vulnerability_fails_the_scan_and_a_database_that_is_away_is_said(
    said: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _script("scan").judged(said) == status
    assert words in capsys.readouterr().out
