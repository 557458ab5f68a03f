/* my-plugin: writes a line into the gateway's log for each exchange that ended with an error.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         grant "log"
 *         on-failure "skip"
 *         config { from 400 }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

/* The lowest status that is told of. */
static uint64_t lowest;

static setting settings[] = {
    {.name = IS("from"), .place = IS("/from"), .numbers = &lowest, .most = 1},
};

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 1);
    if (wrong.message.at) return wrong;
    if (lowest < 100 || lowest > 599) return FAULT("a status is 100 to 599", "/from");
    return wrong;
}

/* ── lifecycle ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* These come along with each call, and are read by their places here. */
static const text wanted[] = {IS("status"), IS("method"), IS("path"), IS("client-ip")};

EXPORT("gateway:policy/lifecycle@0.1.0#describe")
const description *describe(void) {
    static const description description = {
        .name = IS("my-plugin"),
        .version = IS("0.1.0"),
        .about = IS("Writes a line for each exchange that ended with an error."),
        .needs.log = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── access-log ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* `write: func(level: level, message: string)`. */
IMPORT("gateway:policy/log@0.1.0", "write")
void write(uint32_t level, const char *message, size_t length);

enum { WARN = 2 };

/* A line that is being written: the host cuts longer ones. */
static char line[1024];
static size_t line_length;

static void put(text part) {
    for (size_t i = 0; i < part.length && line_length < sizeof(line); i++) {
        /* A message is UTF-8, which nobody promises of bytes from the network. */
        line[line_length++] = (unsigned char)part.at[i] < 128 ? part.at[i] : '?';
    }
}

static void put_number(uint32_t number, uint32_t base) {
    char digits[10];
    size_t from = sizeof(digits);
    do {
        digits[--from] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0);
    put((text){digits + from, sizeof(digits) - from});
}

/* An address of 4 or 16 bytes, as people read it. */
static void put_address(text address) {
    const unsigned char *bytes = (const unsigned char *)address.at;
    bool is_old = address.length == 4;
    for (size_t i = 0; i < address.length; i += is_old ? 1 : 2) {
        if (i > 0) put(is_old ? TEXT(".") : TEXT(":"));
        if (is_old) put_number(bytes[i], 10);
        if (!is_old) put_number((uint32_t)bytes[i] << 8 | bytes[i + 1], 16);
    }
}

EXPORT("gateway:policy/access-log@0.1.0#on-log")
void on_log(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    text found[4];
    for (uint32_t need = 0; need < 4; need++) found[need] = first(index, numbers, bytes, length, need);
    text status = found[0], method = found[1], path = found[2], client = found[3];
    /* No status: the client was sent none. */
    reader from = {status.at, status.at + status.length};
    uint64_t number = 0;
    takes_number(&from, &number);
    if (number >= lowest && (client.length == 4 || client.length == 16)) {
        line_length = 0;
        put_address(client);
        put(TEXT(" got "));
        put(status);
        put(TEXT(" for "));
        put(method.at ? method : TEXT("?"));
        put(TEXT(" "));
        put(path.at ? path : TEXT("?"));
        write(WARN, line, line_length);
    }
    forget();
}
