/* my-plugin: lets in connections from addresses that the operator names, before a byte of them is read.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         on-failure "deny"
 *         config { allow "192.0.2.1" "192.0.2.7" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

enum { MAX_ALLOWED = 64 };

static text allowed[MAX_ALLOWED];

/* The same, as clients' addresses are: four bytes in the order of the network. */
static char addresses[MAX_ALLOWED][4];

static setting settings[] = {
    {.name = IS("allow"), .place = IS("/allow"), .texts = allowed, .most = MAX_ALLOWED},
};

static bool read_address(text address, char *bytes) {
    reader from = {address.at, address.at + address.length};
    for (size_t i = 0; i < 4; i++) {
        uint64_t number;
        if (i > 0 && !takes(&from, '.')) return false;
        if (!takes_number(&from, &number) || number > 255) return false;
        bytes[i] = (char)number;
    }
    return from.at == from.end;
}

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 1);
    for (size_t i = 0; i < settings[0].count; i++) {
        if (!read_address(allowed[i], addresses[i])) return FAULT("an address is one of IPv4, as `192.0.2.1`", "/allow");
    }
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The address comes along with each call. */
static const text wanted[] = {IS("client-ip")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Lets in connections from known addresses."),
        .needs.connection = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── connection-filter ────────────────────────────────────────────────────────────────────────────────────────────────── */

/* What becomes of a connection. */
typedef struct {
    uint8_t which;
    text backend; /* For a route to another one. */
} verdict;

enum { ACCEPT = 0, REFUSE = 1 };

EXPORT("gateway:policy/connection-filter@0.1.0#on-connect")
const verdict *on_connect(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static verdict verdict;
    text client = first(index, numbers, bytes, length, 0);
    verdict.which = REFUSE;
    for (size_t i = 0; i < settings[0].count; i++) {
        if (equal((text){addresses[i], 4}, client)) verdict.which = ACCEPT;
    }
    return &verdict;
}

FORGET_AFTER("gateway:policy/connection-filter@0.1.0#on-connect", after_connect)
