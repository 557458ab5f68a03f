// my-plugin: turns away requests whose body has a text that the operator does not want there.

// Bytes of a body that is looked at.
const MOST = 65_536n;

let forbidden = [];

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Turns away requests whose body has a text that is not wanted.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"forbid": "<script"}` or a list of texts. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "forbid") refuse(`there is no \`${name}\``, `/${name}`);
    }
    const texts = [config.forbid ?? []].flat();
    if (texts.length === 0 || !texts.every((text) => typeof text === "string" && text !== "")) {
      refuse("say which texts no body may have, each of at least a byte", "/forbid");
    }
    forbidden = texts.map(bytes);
    return noNeeds();
  },
};

export const requestBodyFilter = {
  onRequestBody(_facts) {
    // The whole body comes at once, while its head is held: a text cannot lie across two pieces, and there may still be a
    // reply. A longer body is refused with 413; the operator's `limit body=` may allow less.
    return { tag: "buffered", val: MOST };
  },

  onRequestPiece(piece) {
    const isInIt = forbidden.some((text) => find(piece.bytes, text) !== -1);
    const refused = { status: 403, headers: [], body: bytes("my-plugin does not take this\n") };
    return { state: new Uint8Array(), verdict: isInIt ? { tag: "reply", val: refused } : { tag: "pass" } };
  },
};

/** Where some bytes are in others, from a place on; -1 where they are not. */
function find(all, part, from = 0) {
  for (let at = all.indexOf(part[0], from); at !== -1; at = all.indexOf(part[0], at + 1)) {
    if (part.every((byte, index) => all[at + index] === byte)) return at;
  }
  return -1;
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
