"""The extension for VS Code under node: what it starts, of which files, and what it stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "editors" / "vscode"
MANIFEST = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))

HOST = """
const told = [];
class LanguageClient {
  constructor(id, name, server, options) { told.push(["made", id, server, options]); }
  start() { told.push(["start"]); return Promise.resolve(); }
  stop() { told.push(["stop"]); return Promise.resolve(); }
}
const settings = JSON.parse(process.argv[2]);
const workspace = { getConfiguration: (section) => ({ get: (name) => settings[`${section}.${name}`] }) };
const modules = { vscode: { workspace }, "vscode-languageclient/node": { LanguageClient } };
const Module = require("module");
const load = Module._load;
Module._load = (name, ...rest) => modules[name] ?? load(name, ...rest);
const extension = require(process.argv[1]);
(async () => {
  await extension.deactivate();  // before it was ever active
  await extension.activate({ subscriptions: [] });
  await extension.deactivate();
  console.log(JSON.stringify(told));
})();
"""


def test_it_starts_the_server_that_the_settings_name() -> None:
    node = shutil.which("node")
    if node is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no node here, which VS Code runs on")
    settings = {
        name: setting["default"] for name, setting in MANIFEST["contributes"]["configuration"]["properties"].items()
    }
    main = str(FOLDER / MANIFEST["main"])
    done = subprocess.run(
        [node, "-e", HOST, main, json.dumps(settings)], capture_output=True, text=True, timeout=60, check=True
    )
    made, *later = json.loads(done.stdout)
    languages = [language["id"] for language in MANIFEST["contributes"]["languages"]]
    server = {"command": "blockdsl", "args": ["lsp"]}
    assert made == ["made", "blockdsl", server, {"documentSelector": [{"language": name} for name in languages]}]
    assert later == [["start"], ["stop"]]


def test_the_manifest_names_files_that_are_there() -> None:
    """What https://code.visualstudio.com/api/references/extension-manifest asks of one, as far as this one goes."""
    contributes: dict[str, Any] = MANIFEST["contributes"]
    assert MANIFEST["name"] == MANIFEST["name"].lower()
    assert all(part.isdecimal() for part in MANIFEST["version"].split("."))
    assert MANIFEST["engines"]["vscode"].startswith("^1.")
    paths = [MANIFEST["main"], *(each["configuration"] for each in contributes["languages"])]
    grammars = contributes["grammars"]
    for path in (*paths, *(each["path"] for each in grammars)):
        assert (FOLDER / path).is_file(), path
    known = {language["id"] for language in contributes["languages"]}
    for grammar in grammars:
        assert grammar["language"] in known
        assert json.loads((FOLDER / grammar["path"]).read_text(encoding="utf-8"))["scopeName"] == grammar["scopeName"]
    assert all(extension.startswith(".") for each in contributes["languages"] for extension in each["extensions"])
    json.loads((FOLDER / contributes["languages"][0]["configuration"]).read_text(encoding="utf-8"))
