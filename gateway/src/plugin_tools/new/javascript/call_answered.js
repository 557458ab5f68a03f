// my-plugin: asks another service about each request, and lets in what it answers with 200.
import { setHeader } from "gateway:policy/request-edits@0.1.0";

// Positions in the list of needs, in the order of `configure`.
const CREDENTIALS = 0;

let backend, path;

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Asks another service about each request.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"backend": "auth", "path": "/check"}`. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (!["backend", "path"].includes(name)) refuse(`there is no \`${name}\``, `/${name}`);
    }
    ({ backend, path } = config);
    // The plugin has to be granted it: `call "auth"`.
    if (typeof backend !== "string" || backend === "") refuse("say which backend is asked", "/backend");
    if (typeof path !== "string" || !path.startsWith("/")) refuse("a path begins with `/`", "/path");
    return { ...noNeeds(), request: ["header:authorization"] };
  },
};

export const requestFilter = {
  onRequest(facts) {
    const credentials = first(facts, CREDENTIALS);
    if (credentials === undefined) return reply(401, "my-plugin wants to know who you are\n");
    return {
      tag: "call",
      val: {
        backend,
        method: "GET",
        target: bytes(path),
        headers: [{ name: "authorization", value: credentials }],
        body: new Uint8Array(),
        // The operator's `timeout`.
        timeoutMs: 0,
        // No instance waits for the answer. What the other hook has to know goes in here.
        state: new Uint8Array(),
      },
    };
  },
};

export const callAnswered = {
  onAnswer(_facts, answer, _state) {
    // It did not come in time, was too long, or never came at all.
    if (answer.tag === "err") return reply(503, "my-plugin could not ask\n");
    const { status, headers } = answer.val;
    if (status !== 200) return reply(403, "my-plugin says no\n");
    // The service says who it is; nobody else is believed.
    const user = headers.find(({ name }) => name === "x-user")?.value ?? new Uint8Array();
    // An edit that the gateway refuses throws: the call fails then, and the operator's `on-failure` decides.
    setHeader("x-user", user);
    return { tag: "proceed" };
  },
};

function reply(status, text) {
  return { tag: "reply", val: { status, headers: [], body: bytes(text) } };
}

/** The first value of a fact: three numbers each, its need and where its value begins and ends. */
function first(facts, need) {
  for (let at = 0; at + 2 < facts.index.length; at += 3) {
    if (facts.index[at] === need) return facts.bytes.subarray(facts.index[at + 1], facts.index[at + 2]);
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
