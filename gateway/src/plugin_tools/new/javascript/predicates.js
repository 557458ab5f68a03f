// my-plugin: answers a question for acls: whether a request's method is one that the operator has allowed.

// Positions in the list of needs, in the order of `configure`.
const METHOD = 0;

let allowed = [];

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Tells whether a request's method is allowed.",
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
      refuse("say which methods are allowed, as `GET`", "/allow");
    }
    // The method comes along with each call, and costs no call to read.
    return { ...noNeeds(), request: ["method"] };
  },
};

export const predicates = {
  /** At most 64 questions; all of them are answered in one call. */
  names() {
    return ["allowed"];
  },

  /** A bit for each question, in the order of their names. */
  evaluate(facts) {
    return allowed.includes(first(facts, METHOD)) ? 1n : 0n;
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

function noNeeds() {
  return { request: [], response: [], log: [], connection: [] };
}

/** The error of the contract: the gateway shows the message, and points at the place in the configuration. */
function refuse(message, at) {
  throw Object.assign(new Error(message), { payload: { message, at } });
}
