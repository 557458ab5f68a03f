// my-plugin: turns away requests whose method the operator has not allowed, and tells the server that it has looked.
import { setHeader } from "gateway:policy/request-edits@0.1.0";

// Positions in the list of needs, in the order of `configure`.
const METHOD = 0;

let allowed = [];

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Turns away requests whose method is not allowed.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"allow": "GET"}` or `{"allow": ["GET", "HEAD"]}`. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "allow") refuse(`there is no \`${name}\``, `/${name}`);
    }
    allowed = [config.allow ?? []].flat();
    if (allowed.length === 0 || !allowed.every((method) => typeof method === "string" && method !== "")) {
      refuse("say which methods are let through, as `GET`", "/allow");
    }
    // The method comes along with each call, and costs no call to read.
    return { ...noNeeds(), request: ["method"] };
  },
};

export const requestFilter = {
  onRequest(facts) {
    if (!allowed.includes(first(facts, METHOD))) {
      return { tag: "reply", val: { status: 403, headers: [], body: bytes("my-plugin says no\n") } };
    }
    // An edit that the gateway refuses throws: the call fails then, and the operator's `on-failure` decides.
    setHeader("x-checked-by", bytes("my-plugin"));
    return { tag: "proceed" };
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
