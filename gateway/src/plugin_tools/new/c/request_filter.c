/* my-plugin: turns away requests whose method the operator has not allowed, and tells the server that it has looked.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny" status=503
 *         config { allow "GET" "HEAD" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { MAX_ALLOWED = 16 };

static text allowed[MAX_ALLOWED];

static setting settings[] = {
    {.name = IS("allow"), .place = IS("/allow"), .texts = allowed, .most = MAX_ALLOWED},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 1);
    for (size_t i = 0; i < settings[0].count; i++) {
        if (allowed[i].length == 0) return FAULT("a method has a name, as `GET`", "/allow");
    }
    return wrong;
}

static bool is_allowed(text method) {
    for (size_t i = 0; i < settings[0].count; i++) {
        if (equal(allowed[i], method)) return true;
    }
    return false;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The method comes along with each call. */
static const text wanted[] = {IS("method")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Turns away requests whose method is not allowed."),
        .needs.request = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── request-filter ───────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `set-header: func(name: string, value: list<u8>) -> result<_, string>`: the result is written where the last parameter says. */
IMPORT("gateway:policy/request-edits@0.1.0", "set-header")
void set_header(const char *name, size_t name_length, const char *value, size_t value_length, edited *result);

/* The contract's `outcome`. */
typedef struct {
    uint8_t which;
    union {
        reply reply;
        /* As large as the largest case, `call`. */
        uint32_t space[13];
    };
} outcome;

enum { PROCEED = 0, REPLY = 1 };

EXPORT("gateway:policy/request-filter@0.1.0#on-request")
const outcome *on_request(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static outcome outcome;
    if (!is_allowed(first(index, numbers, bytes, length, 0))) {
        outcome.which = REPLY;
        outcome.reply = (reply){.status = 403, .body = IS("my-plugin says no\n")};
        return &outcome;
    }
    edited result = {0};
    const text name = IS("x-checked-by"), value = IS("my-plugin");
    set_header(name.at, name.length, value.at, value.length, &result);
    /* An edit that is refused is a mistake of this plugin's: the call fails. */
    if (result.is_error) __builtin_trap();
    outcome.which = PROCEED;
    return &outcome;
}

FORGET_AFTER("gateway:policy/request-filter@0.1.0#on-request", after_request)
