// my-plugin: puts another text in the place of one, in the texts that servers answer with.

// Positions in the list of needs, in the order of `configure`.
const CONTENT_TYPE = 0;
const CODING = 1;

// Bytes of the text: so much is held back of each piece at most.
const MOST = 1_000;

let wanted, by;

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Puts another text in the place of one in what servers answer.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"replace": "app-1", "by": "somewhere"}`. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (!["replace", "by"].includes(name)) refuse(`there is no \`${name}\``, `/${name}`);
    }
    if (typeof config.replace !== "string") refuse("say which text is looked for", "/replace");
    if (typeof config.by !== "string") refuse("say which text stands in its place", "/by");
    wanted = bytes(config.replace);
    by = bytes(config.by);
    if (wanted.length < 1 || wanted.length > MOST) refuse("a text to look for has 1 to 1,000 bytes", "/replace");
    // These come along with each call, and cost no call to read.
    return { ...noNeeds(), response: ["response-header:content-type", "response-header:content-encoding"] };
  },
};

export const responseBodyFilter = {
  onResponseBody(facts) {
    const isText = first(facts, CONTENT_TYPE)?.startsWith("text/");
    // What is compressed cannot be read here, and passes unseen.
    return { tag: isText && first(facts, CODING) === undefined ? "streamed" : "skip" };
  },

  onResponsePiece(piece) {
    // Pieces are as the network brings them: the text may lie across two. So an end in which it may have begun is held back,
    // and comes again with the next piece. The last piece may be empty.
    const all = joined([piece.state, piece.bytes]);
    const goesOn = [];
    let from = 0;
    for (let at = find(all, wanted); at !== -1; at = find(all, wanted, from)) {
      goesOn.push(all.subarray(from, at), by);
      from = at + wanted.length;
    }
    const end = piece.last ? all.length : Math.max(from, all.length - (wanted.length - 1));
    goesOn.push(all.subarray(from, end));
    return { state: all.subarray(end), verdict: { tag: "replace", val: joined(goesOn) } };
  },
};

/** Where some bytes are in others, from a place on; -1 where they are not. */
function find(all, part, from = 0) {
  for (let at = all.indexOf(part[0], from); at !== -1; at = all.indexOf(part[0], at + 1)) {
    if (part.every((byte, index) => all[at + index] === byte)) return at;
  }
  return -1;
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

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
