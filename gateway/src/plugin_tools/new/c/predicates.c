/* my-plugin: answers a question for acls: whether a request's method is one that the operator has allowed.
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
        .about = IS("Tells whether a request's method is allowed."),
        .needs.request = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── predicates ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* At most 64 questions; all of them are answered in one call. */
EXPORT("gateway:policy/predicates@0.1.0#names")
const texts *names(void) {
    static const text questions[] = {IS("allowed")};
    static const texts names = {questions, 1};
    return &names;
}

/* A bit for each question, in the order of their names. */
EXPORT("gateway:policy/predicates@0.1.0#evaluate")
uint64_t evaluate(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    uint64_t answers = is_allowed(first(index, numbers, bytes, length, 0)) ? 1 : 0;
    forget();
    return answers;
}
