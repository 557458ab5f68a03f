/* my-plugin: keeps in what servers say when they fail, and tells clients of other responses that it has looked.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny" status=503
 *         config { hide 500 502 503 }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { MAX_HIDDEN = 16 };

static uint64_t hidden[MAX_HIDDEN];

static setting settings[] = {
    {.name = IS("hide"), .place = IS("/hide"), .numbers = hidden, .most = MAX_HIDDEN},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 1);
    for (size_t i = 0; i < settings[0].count; i++) {
        if (hidden[i] < 400 || hidden[i] > 599) return FAULT("an error has a status of 400 to 599", "/hide");
    }
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The status comes along with each call. */
static const text wanted[] = {IS("status")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Keeps in what servers say when they fail."),
        .needs.response = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── response-filter ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `set-header: func(name: string, value: list<u8>) -> result<_, string>`: the result is written where the last parameter says. */
IMPORT("gateway:policy/response-edits@0.1.0", "set-header")
void set_header(const char *name, size_t name_length, const char *value, size_t value_length, edited *result);

/* What is sent in the place of the response, if anything. */
typedef struct {
    uint8_t is_some;
    reply reply;
} maybe_reply;

EXPORT("gateway:policy/response-filter@0.1.0#on-response")
const maybe_reply *on_response(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static maybe_reply answer;
    text digits = first(index, numbers, bytes, length, 0);
    reader from = {digits.at, digits.at + digits.length};
    uint64_t status = 0;
    takes_number(&from, &status);
    for (size_t i = 0; i < settings[0].count; i++) {
        if (hidden[i] != status) continue;
        answer.is_some = 1;
        answer.reply = (reply){.status = (uint16_t)status, .body = IS("my-plugin says no more\n")};
        return &answer;
    }
    edited result = {0};
    const text name = IS("x-checked-by"), value = IS("my-plugin");
    set_header(name.at, name.length, value.at, value.length, &result);
    /* An edit that is refused is a mistake of this plugin's: the call fails. */
    if (result.is_error) __builtin_trap();
    answer.is_some = 0;
    return &answer;
}

FORGET_AFTER("gateway:policy/response-filter@0.1.0#on-response", after_response)
