// node build.mjs OUT: makes the component. Needs `npm install @bytecodealliance/componentize-js` here or above.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const here = dirname(fileURLToPath(import.meta.url));
// The world, and the contract as it is in this checkout beside it.
const wit = mkdtempSync(join(tmpdir(), "wit-"));
try {
  cpSync(join(here, "wit"), wit, { recursive: true });
  cpSync(join(here, "../../../wit/policy.wit"), join(wit, "deps/policy/policy.wit"));
  const { component } = await componentize(readFileSync(join(here, "language.js"), "utf8"), {
    witPath: wit,
    worldName: "language",
    // Components get no WASI: what is left of the engine's needs for one is answered inside the component.
    disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
  });
  writeFileSync(process.argv[2] ?? "language.wasm", component);
} finally {
  rmSync(wit, { recursive: true });
}
