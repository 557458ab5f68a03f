// my-plugin: keeps in what servers say when they fail, and tells clients of other responses that it has looked.
import { setHeader } from "gateway:policy/response-edits@0.1.0";

// Positions in the list of needs, in the order of `configure`.
const STATUS = 0;

let hidden = [];

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Keeps in what servers say when they fail.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"hide": 500}` or `{"hide": [500, 502]}`. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "hide") refuse(`there is no \`${name}\``, `/${name}`);
    }
    hidden = [config.hide ?? []].flat();
    if (hidden.length === 0 || !hidden.every((status) => Number.isInteger(status) && status >= 400 && status <= 599)) {
      refuse("say which errors are kept in: an error has a status of 400 to 599", "/hide");
    }
    // The status comes along with each call, and costs no call to read.
    return { ...noNeeds(), response: ["status"] };
  },
};

export const responseFilter = {
  /** A reply is sent in the place of the response; nothing, where there is none. */
  onResponse(facts) {
    const status = Number(first(facts, STATUS));
    if (hidden.includes(status)) return { status, headers: [], body: bytes("my-plugin says no more\n") };
    // An edit that the gateway refuses throws: the call fails then, and the operator's `on-failure` decides.
    setHeader("x-checked-by", bytes("my-plugin"));
    return undefined;
  },
};

/** The first value of a fact, as text: three numbers each, its need and where its value begins and ends. */
function first(facts, need) {
  for (let at = 0; at + 2 < facts.index.length; at += 3) {
    if (facts.index[at] === need) {
      const value = facts.bytes.subarray(facts.index[at + 1], facts.index[at + 2]);
      // Bytes from the network are not promised to be UTF-8: this does not fail.
      return new TextDecoder().decode(value);
    }
  }
  return undefined;
}

function bytes(text) {
  return new TextEncoder().encode(text);
}

function noNeeds() {
  return { request: [], response: [], log: [], connection: [] };
}

/** The error of the contract: the gateway shows the message, and points at the place in the configuration. */
function refuse(message, at) {
  throw Object.assign(new Error(message), { payload: { message, at } });
}
