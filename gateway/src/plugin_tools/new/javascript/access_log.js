// my-plugin: writes a line into the gateway's log for each exchange that ended with an error.
import { write } from "gateway:policy/log@0.1.0";

// Positions in the list of needs, in the order of `configure`.
const STATUS = 0;
const METHOD = 1;
const PATH = 2;
const CLIENT = 3;

let from;

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Writes a line for each exchange that ended with an error.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"from": 400}`, the lowest status that is told of. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "from") refuse(`there is no \`${name}\``, `/${name}`);
    }
    from = config.from;
    if (!Number.isInteger(from) || from < 100 || from > 599) refuse("a status is 100 to 599", "/from");
    return { ...noNeeds(), log: ["status", "method", "path", "client-ip"] };
  },
};

export const accessLog = {
  onLog(facts) {
    // No status: the client was sent none.
    const status = Number(text(first(facts, STATUS)) ?? 0);
    const client = first(facts, CLIENT);
    if (status < from || client === undefined) return;
    const method = text(first(facts, METHOD)) ?? "?";
    const path = text(first(facts, PATH)) ?? "?";
    // The host escapes control characters.
    write("warn", `${address(client)} got ${status} for ${method} ${path}`);
  },
};

/** An address of 4 or 16 bytes, as people read it. */
function address(bytes) {
  if (bytes.length === 4) return bytes.join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: 8 }, (_, part) => view.getUint16(part * 2).toString(16)).join(":");
}

/** The first value of a fact: three numbers each, its need and where its value begins and ends. */
function first(facts, need) {
  for (let at = 0; at + 2 < facts.index.length; at += 3) {
    if (facts.index[at] === need) return facts.bytes.subarray(facts.index[at + 1], facts.index[at + 2]);
  }
  return undefined;
}

/** Bytes from the network are not promised to be UTF-8: this does not fail. */
function text(bytes) {
  return bytes && new TextDecoder().decode(bytes);
}

function noNeeds() {
  return { request: [], response: [], log: [], connection: [] };
}

/** The error of the contract: the gateway shows the message, and points at the place in the configuration. */
function refuse(message, at) {
  throw Object.assign(new Error(message), { payload: { message, at } });
}
