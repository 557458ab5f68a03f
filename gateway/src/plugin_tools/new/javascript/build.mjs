// Makes my_plugin.wasm.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { componentize } from "@bytecodealliance/componentize-js";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const { component } = await componentize(readFileSync(path("plugin.js"), "utf8"), {
  witPath: path("wit"),
  worldName: "my-plugin",
  // Components get no WASI: what is left of the engine's needs for one is answered inside the component.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
writeFileSync(path("my_plugin.wasm"), component);
