"""The page to write patterns in as a folder that any static server can hand out: `python -m tests.edit.site FOLDER`.

Python runs in the browser: Pyodide comes from npm, lark and networkx from PyPI, and the package from this tree. Nothing
of it is committed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from blockdsl.editor import page

ROOT = Path(__file__).parent.parent.parent
STATIC = Path(__file__).parent / "static"
RUNTIME = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.js",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
"""Files of the npm package that a browser loads; which of the two scripts there is depends on its version."""
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; worker-src 'self'; base-uri 'none'; form-action 'none'"
)


def build(folder: Path) -> Path:
    """Put everything into a folder; returns it.

    Raises:
        OSError, subprocess.SubprocessError: npm or pip is not there, or cannot reach its registry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in page.file_names():
        (folder / name).write_bytes(page.file_content(name)[0])
    for path in STATIC.iterdir():
        shutil.copy(path, folder)
    start = folder / "page.html"
    policy = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    start.write_text(start.read_text(encoding="utf-8").replace('<meta charset="utf-8">', policy), encoding="utf-8")
    start.rename(folder / "index.html")
    _runtime(folder / "pyodide")
    wheels = _wheels(folder / "wheels")
    (folder / "wheels.json").write_text(json.dumps([f"wheels/{path.name}" for path in wheels]))
    return folder


def _runtime(folder: Path) -> None:
    folder.mkdir()
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["npm", "pack", "--silent", "pyodide"], cwd=place, check=True, capture_output=True, timeout=120)
        (packed,) = Path(place).glob("pyodide-*.tgz")
        with tarfile.open(packed) as archive:
            for member in archive:
                name = member.name.removeprefix("package/")
                if name in RUNTIME and (file := archive.extractfile(member)) is not None:
                    (folder / name).write_bytes(file.read())


def _wheels(folder: Path) -> list[Path]:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    runs = (
        [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), "lark", "networkx"],
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
    )
    for run in runs:
        subprocess.run(run, check=True, capture_output=True, timeout=180)
    return sorted(folder.glob("*.whl"))


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
