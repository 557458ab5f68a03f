// Sends visitors of the front page to the page in their language: the one of their cookie, else the best that their browser
// asks for (RFC 9110, section 12.5.4), else the first that there is.
//
//     plugin "language" "language.wasm" {
//         on-failure "skip"
//         config { language "en" "de" "fr"; cookie "lang" }
//     }

// Positions in the list of needs, in the order of `configure`.
const PATH = 0;
const ACCEPT = 1;
const COOKIE = 2;

let languages = [];

export const lifecycle = {
  describe() {
    return {
      name: "language",
      version: "0.1.0",
      about: "Sends visitors of the front page to the page in their language.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "language" && name !== "cookie") refuse(`there is no \`${name}\``, `/${name}`);
    }
    languages = [config.language ?? []].flat();
    languages.forEach((language, index) => {
      if (typeof language !== "string" || !/^[a-z]{2,3}(-[a-z0-9]{2,8})*$/.test(language)) {
        refuse("a language is written as `en` or `pt-br`", `/language/${index}`);
      }
    });
    if (languages.length === 0) refuse("there is no language", "/language");
    const cookie = config.cookie ?? "lang";
    if (typeof cookie !== "string" || !/^[\w-]+$/.test(cookie)) refuse("this is no name of a cookie", "/cookie");
    return { ...noNeeds(), request: ["path", "header:accept-language", `cookie:${cookie}`] };
  },
};

export const requestFilter = {
  onRequest(facts) {
    if (first(facts, PATH) !== "/") return { tag: "proceed" };
    const chosen = first(facts, COOKIE);
    const language = languages.includes(chosen) ? chosen : preferred(all(facts, ACCEPT).join(","));
    return {
      tag: "reply",
      val: {
        status: 302,
        headers: [field("location", `/${language}/`), field("vary", "Accept-Language, Cookie")],
        body: new Uint8Array(),
      },
    };
  },
};

/** The language that somebody likes best among those that there are. */
function preferred(accepted) {
  let best = { language: languages[0], weight: 0 };
  // What a browser sends is short; whoever sends more is not read to the end.
  for (const part of accepted.slice(0, 1000).split(",")) {
    const [range, ...parameters] = part.trim().toLowerCase().split(";");
    const q = parameters.map((text) => /^\s*q=([01](?:\.\d{0,3})?)\s*$/.exec(text)).find(Boolean);
    const weight = q ? Math.min(Number(q[1]), 1) : 1;
    // RFC 4647, section 3.4: from the longest to the shortest beginning of the range.
    const language = prefixes(range.trim()).find((prefix) => languages.includes(prefix));
    if (language && weight > best.weight) best = { language, weight };
  }
  return best.language;
}

function prefixes(range) {
  const tags = range.split("-");
  return tags.map((_, index) => tags.slice(0, tags.length - index).join("-"));
}

/** Every value of a fact, as text. */
function all(facts, need) {
  const values = [];
  for (let at = 0; at + 2 < facts.index.length; at += 3) {
    if (facts.index[at] === need) values.push(text(facts.bytes.subarray(facts.index[at + 1], facts.index[at + 2])));
  }
  return values;
}

function first(facts, need) {
  return all(facts, need)[0];
}

/** Bytes from the network are not promised to be UTF-8: this does not fail. */
function text(bytes) {
  return new TextDecoder().decode(bytes);
}

function field(name, value) {
  return { name, value: new TextEncoder().encode(value) };
}

function noNeeds() {
  return { request: [], response: [], log: [], connection: [] };
}

/** The error of the contract: the gateway shows the message, and points at the place in the configuration. */
function refuse(message, at) {
  throw Object.assign(new Error(message), { payload: { message, at } });
}
