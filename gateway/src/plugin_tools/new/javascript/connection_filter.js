// my-plugin: lets in connections from addresses that the operator names, before a byte of them is read.

// Positions in the list of needs, in the order of `configure`.
const CLIENT = 0;

let allowed = [];

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Lets in connections from known addresses.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"allow": "192.0.2.1"}` or a list of addresses. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (name !== "allow") refuse(`there is no \`${name}\``, `/${name}`);
    }
    allowed = [config.allow ?? []].flat().map((text) => address(text) ?? refuse(`${text} is no address`, "/allow"));
    if (allowed.length === 0) refuse("say who may come in, as `192.0.2.1`", "/allow");
    // The address comes along with each call, and costs no call to read.
    return { ...noNeeds(), connection: ["client-ip"] };
  },
};

export const connectionFilter = {
  onConnect(facts) {
    const client = first(facts, CLIENT)?.join();
    return { tag: allowed.includes(client) ? "accept" : "refuse" };
  },
};

/** The bytes of an address, 4 or 16, with commas between them; nothing, where it is none. */
function address(text) {
  if (typeof text !== "string") return undefined;
  if (/^(\d{1,3}\.){3}\d{1,3}$/.test(text)) {
    const bytes = text.split(".").map(Number);
    return bytes.every((byte) => byte <= 255) ? bytes.join() : undefined;
  }
  // RFC 4291, section 2.2: eight groups, some of which `::` may stand for.
  const sides = text.split("::").map((side) => (side === "" ? [] : side.split(":")));
  const left = 8 - sides.flat().length;
  const isWhole = sides.length === 1 ? left === 0 : sides.length === 2 && left > 0;
  if (!isWhole || !sides.flat().every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  const groups = [...sides[0], ...Array(left).fill("0"), ...(sides[1] ?? [])].map((group) => parseInt(group, 16));
  return groups.flatMap((group) => [group >> 8, group & 255]).join();
}

/** The first value of a fact: three numbers each, its need and where its value begins and ends. */
function first(facts, need) {
  for (let at = 0; at + 2 < facts.index.length; at += 3) {
    if (facts.index[at] === need) return facts.bytes.subarray(facts.index[at + 1], facts.index[at + 2]);
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
