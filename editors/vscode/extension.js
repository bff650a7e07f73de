// Starts `blockdsl lsp` and hands .pattern files to it; everything that is known of patterns is known there.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = () => {
  const [command, ...args] = workspace.getConfiguration("blockdsl").get("command");
  const server = { command, args };
  client = new LanguageClient("blockdsl", "Layer patterns", server, { documentSelector: [{ language: "pattern" }] });
  return client.start();
};

exports.deactivate = () => client && client.stop();
