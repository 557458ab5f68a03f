/* my-plugin: asks another service about each request, and lets in what it answers with 200.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         call "auth" timeout="1s"
 *         on-failure "deny" status=503
 *         config { backend "auth"; path "/check" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The backend that is asked, which the plugin has to be granted, and what it is asked for. */
static text backend, path;

static setting settings[] = {
    {.name = IS("backend"), .place = IS("/backend"), .texts = &backend, .most = 1},
    {.name = IS("path"), .place = IS("/path"), .texts = &path, .most = 1},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 2);
    if (wrong.message.at) return wrong;
    if (backend.length == 0) return FAULT("say which backend is asked", "/backend");
    if (path.length == 0 || path.at[0] != '/') return FAULT("a path begins with `/`", "/path");
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* What the client says it is comes along with each call. */
static const text wanted[] = {IS("header:authorization")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Asks another service about each request."),
        .needs.request = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── request-filter, call-answered ────────────────────────────────────────────────────────────────────────────────────── */

/* `set-header: func(name: string, value: list<u8>) -> result<_, string>`: the result is written where the last parameter says. */
IMPORT("gateway:policy/request-edits@0.1.0", "set-header")
void set_header(const char *name, size_t name_length, const char *value, size_t value_length, edited *result);

/* A request of the plugin's own. */
typedef struct {
    text backend, method, target;
    struct {
        const field *at;
        size_t length;
    } headers;
    text body;
    uint32_t timeout_ms;
    text state;
} call;

/* The contract's `outcome`. */
typedef struct {
    uint8_t which;
    union {
        reply reply;
        call call;
    };
} outcome;

enum { PROCEED = 0, REPLY = 1, CALL = 3 };

static const outcome *replies(uint16_t status, text body) {
    static outcome outcome;
    outcome.which = REPLY;
    outcome.reply = (reply){.status = status, .body = body};
    return &outcome;
}

EXPORT("gateway:policy/request-filter@0.1.0#on-request")
const outcome *on_request(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    text credentials = first(index, numbers, bytes, length, 0);
    if (!credentials.at) return replies(401, TEXT("my-plugin wants to know who you are\n"));
    static outcome outcome;
    static field header;
    header = (field){IS("authorization"), credentials};
    outcome.which = CALL;
    /* No instance waits for the answer: what the other hook has to know goes into `state`. No timeout is the operator's. */
    outcome.call = (call){.backend = backend, .method = IS("GET"), .target = path, .headers = {&header, 1}};
    return &outcome;
}

FORGET_AFTER("gateway:policy/request-filter@0.1.0#on-request", after_request)

/* `answer` is a result: what follows `is_error` is an answer's status, header fields and body, or which error it is and its text. */
EXPORT("gateway:policy/call-answered@0.1.0#on-answer")
const outcome *on_answer(const uint32_t *index, size_t numbers, const char *bytes, size_t length, uint32_t is_error,
                         uint32_t status, const field *headers, size_t header_count, const char *body, size_t body_length,
                         const char *state, size_t state_length) {
    (void)index, (void)numbers, (void)bytes, (void)length, (void)body, (void)body_length, (void)state, (void)state_length;
    /* It did not come in time, was too long, or never came at all. */
    if (is_error) return replies(503, TEXT("my-plugin could not ask\n"));
    if (status != 200) return replies(403, TEXT("my-plugin says no\n"));
    /* The service says who it is; nobody else is believed. */
    const text name = IS("x-user");
    text user = IS("");
    for (size_t i = 0; i < header_count; i++) {
        if (equal(headers[i].name, name)) user = headers[i].value;
    }
    edited result = {0};
    set_header(name.at, name.length, user.at, user.length, &result);
    /* An edit that is refused is a mistake of this plugin's: the call fails. */
    if (result.is_error) __builtin_trap();
    static const outcome proceeds = {.which = PROCEED};
    return &proceeds;
}

FORGET_AFTER("gateway:policy/call-answered@0.1.0#on-answer", after_answer)
