/* my-plugin: turns away requests whose body has a text that the operator does not want there.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny" status=503
 *         config { forbid "<script" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { MAX_FORBIDDEN = 16 };

static text forbidden[MAX_FORBIDDEN];

static setting settings[] = {
    {.name = IS("forbid"), .place = IS("/forbid"), .texts = forbidden, .most = MAX_FORBIDDEN},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 1);
    for (size_t i = 0; i < settings[0].count; i++) {
        if (forbidden[i].length == 0) return FAULT("every body has a text of no bytes", "/forbid");
    }
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Turns away requests whose body has a text that is not wanted."),
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── request-body-filter ──────────────────────────────────────────────────────────────────────────────────────────────── */

/* How a body is to be filtered. */
typedef struct {
    uint8_t which;
    uint64_t most; /* For `BUFFERED`. */
} body_mode;

enum { BUFFERED = 3 };

/* Bytes of a body that is looked at. */
enum { MOST = 64 * 1024 };

/* What becomes of a piece: the state that comes back with the next one, and what becomes of its bytes. */
typedef struct {
    text state;
    uint8_t verdict;
    union {
        text bytes;
        reply reply;
    };
} piece_outcome;

enum { PASS = 0, REPLY = 3 };

EXPORT("gateway:policy/request-body-filter@0.1.0#on-request-body")
const body_mode *on_request_body(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    (void)index, (void)numbers, (void)bytes, (void)length;
    /* The whole body comes at once, while its head is held: a text cannot lie across two pieces, and there may still be a reply.
     * A longer body is refused with 413; the operator's `limit body=` may allow less. */
    static const body_mode mode = {.which = BUFFERED, .most = MOST};
    return &mode;
}

FORGET_AFTER("gateway:policy/request-body-filter@0.1.0#on-request-body", after_body)

/* Whether a text begins here. */
static bool begins(text all, size_t at, text part) {
    return all.length - at >= part.length && equal((text){all.at + at, part.length}, part);
}

EXPORT("gateway:policy/request-body-filter@0.1.0#on-request-piece")
const piece_outcome *on_request_piece(const char *state, size_t state_length, const char *at, size_t length, uint32_t last) {
    (void)state, (void)state_length, (void)last;
    static piece_outcome outcome;
    text bytes = {at, length};
    outcome.verdict = PASS;
    for (size_t i = 0; i < length; i++) {
        for (size_t j = 0; j < settings[0].count; j++) {
            if (!begins(bytes, i, forbidden[j])) continue;
            outcome.verdict = REPLY;
            outcome.reply = (reply){.status = 403, .body = IS("my-plugin does not take this\n")};
            return &outcome;
        }
    }
    return &outcome;
}

FORGET_AFTER("gateway:policy/request-body-filter@0.1.0#on-request-piece", after_piece)
