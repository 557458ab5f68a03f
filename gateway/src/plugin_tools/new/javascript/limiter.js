// my-plugin: lets each client make so many requests in a time. All workers count together: the host keeps the buckets.
import { take } from "gateway:policy/buckets@0.1.0";

// Positions in the list of needs, in the order of `configure`.
const CLIENT = 0;

// Milliseconds of a unit of time.
const UNITS = { ms: 1n, s: 1_000n, m: 60_000n, h: 3_600_000n, d: 86_400_000n };

let rate;

export const lifecycle = {
  describe() {
    return {
      name: "my-plugin",
      version: "0.1.0",
      about: "Lets each client make so many requests in a time.",
      needs: noNeeds(),
      metrics: [],
    };
  },

  /** The operator's `config { … }` as JSON: `{"quota": 3, "per": "1m"}`. */
  configure(text) {
    const config = JSON.parse(text);
    for (const name of Object.keys(config)) {
      if (!["quota", "per"].includes(name)) refuse(`there is no \`${name}\``, `/${name}`);
    }
    if (!Number.isSafeInteger(config.quota) || config.quota < 1) {
      refuse("say how many requests a client may make, at least one", "/quota");
    }
    const [, count, unit] = /^([1-9]\d{0,6})(ms|s|m|h|d)$/.exec(config.per) ?? refuse("say in which time, as `1m`", "/per");
    // What has 64 bits is a BigInt.
    const tokens = BigInt(config.quota);
    rate = { tokens, periodMs: BigInt(count) * UNITS[unit], burst: tokens };
    // The address comes along with each call, and costs no call to read.
    return { ...noNeeds(), request: ["client-ip"] };
  },
};

export const limiter = {
  policies() {
    return [{ name: "my-plugin", quota: rate.burst, windowMs: rate.periodMs }];
  },

  /** Nothing, where no limit applies. */
  check(facts) {
    const client = first(facts, CLIENT);
    if (client === undefined) return undefined;
    const taken = take("client", client, rate, 1);
    const missing = rate.burst - taken.remaining;
    return {
      allowed: taken.allowed,
      // The first of `policies`.
      policy: 0,
      remaining: taken.remaining,
      resetMs: (missing * rate.periodMs + rate.tokens - 1n) / rate.tokens,
      retryAfterMs: taken.retryAfterMs,
    };
  },
};

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
