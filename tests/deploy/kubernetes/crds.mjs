// Checks custom resources: `node crds.mjs FOLDER`, FOLDER with node_modules, manifests as a JSON list on stdin.
//
// Prints a JSON list with one entry for each manifest: a list of problems, or null if no schema covers its kind.
// The models' validators know patterns, bounds and required fields, and their types know which fields there are.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};

const folder = process.argv[2];
const require = createRequire(pathToFileURL(join(folder, "check.js")));
const ts = require("typescript");
const manifests = JSON.parse(readFileSync(0, "utf-8"));
const models = await Promise.all(manifests.map(findModel));
const unknownFields = checkTypes();
console.log(JSON.stringify(models.map((model, index) => model && [...validate(model, index), ...unknownFields[index]])));

async function findModel(manifest) {
  const name = PACKAGES[manifest.apiVersion];
  if (name === undefined) return null;
  const [scope, short, group, version] = name.split("/");
  const index = join(folder, "node_modules", scope, short, group, version, "index.js");
  return (await import(pathToFileURL(index)))[manifest.kind] ?? null;
}

function validate(model, index) {
  try {
    new model(manifests[index]).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

function checkTypes() {
  const found = manifests.map(() => []);
  if (models.every((model) => model === null)) return found;
  const lines = manifests.map((manifest, index) => {
    if (models[index] === null) return "";
    const type = `import("${PACKAGES[manifest.apiVersion]}").I${manifest.kind}`;
    return `export const manifest${index}: ${type} = ${JSON.stringify(manifest)};`;
  });
  const path = join(folder, "check.ts");
  const options = {
    lib: ["lib.es2022.d.ts"],
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  const source = ts.createSourceFile(path, lines.join("\n"), options.target);
  host.fileExists = (name) => name === path || fileExists(name);
  host.getSourceFile = (name, ...rest) => (name === path ? source : getSourceFile(name, ...rest));
  const program = ts.createProgram([path], options, host);
  for (const problem of ts.getPreEmitDiagnostics(program)) {
    const text = ts.flattenDiagnosticMessageText(problem.messageText, " ");
    if (problem.file !== source) throw new Error(text);
    found[source.getLineAndCharacterOfPosition(problem.start).line].push(text);
  }
  return found;
}
