/* my-plugin: lets each client make so many requests in a time. All workers count together: the host keeps the buckets.
 *
 *     plugin "my-plugin" "my_plugin.wasm" {
 *         grant "buckets"
 *         on-failure "deny" status=503
 *         config { quota 3; per "1m" }
 *     }
 *
 * What the canonical ABI asks of it, and the types of the contract, are in contract.h.
 */

#include "contract.h"

/* ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────────────── */

static uint64_t quota, period_ms;
static text per;

static setting settings[] = {
    {.name = IS("quota"), .place = IS("/quota"), .numbers = &quota, .most = 1},
    {.name = IS("per"), .place = IS("/per"), .texts = &per, .most = 1},
};

/* Milliseconds of a unit of time; 0 where it is none. */
static uint64_t unit(text name) {
    if (equal(name, TEXT("ms"))) return 1;
    if (equal(name, TEXT("s"))) return 1000;
    if (equal(name, TEXT("m"))) return 60 * 1000;
    if (equal(name, TEXT("h"))) return 60 * 60 * 1000;
    if (equal(name, TEXT("d"))) return 24 * 60 * 60 * 1000;
    return 0;
}

static fault configure(text config) {
    fault wrong = settings_of(config, settings, 2);
    if (wrong.message.at) return wrong;
    if (quota == 0 || quota > UINT32_MAX) return FAULT("a client may make 1 to 4,294,967,295 requests", "/quota");
    reader from = {per.at, per.at + per.length};
    uint64_t count;
    if (takes_number(&from, &count) && count > 0 && count < 1000000) {
        period_ms = count * unit((text){from.at, (size_t)(from.end - from.at)});
    }
    if (period_ms == 0) return FAULT("say in which time, as `1m`", "/per");
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
        .about = IS("Lets each client make so many requests in a time."),
        .needs.request = {wanted, sizeof(wanted) / sizeof(*wanted)},
    };
    return &description;
}

EXPORT("gateway:policy/lifecycle@0.1.0#configure")
const configured *lifecycle_configure(const char *at, size_t length) {
    return configured_with(configure((text){at, length}));
}

/* ── limiter ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* What came of taking tokens from a bucket. */
typedef struct {
    uint8_t allowed;
    uint64_t remaining, retry_after_ms;
} taken;

/* `take: func(bucket: string, key: list<u8>, rate: rate, tokens: u32) -> taken`: the rate is its three numbers. */
IMPORT("gateway:policy/buckets@0.1.0", "take")
void take(const char *bucket, size_t bucket_length, const char *key, size_t key_length, uint64_t rate_tokens,
          uint64_t rate_period_ms, uint64_t rate_burst, uint32_t tokens, taken *result);

typedef struct {
    text name;
    uint64_t quota, window_ms;
} policy;

typedef struct {
    const policy *at;
    size_t length;
} policies;

/* What becomes of a request; nothing, where no limit applies. */
typedef struct {
    uint8_t is_some;
    struct {
        uint8_t allowed;
        uint32_t policy;
        uint64_t remaining, reset_ms, retry_after_ms;
    } verdict;
} verdict;

EXPORT("gateway:policy/limiter@0.1.0#policies")
const policies *limits(void) {
    static policy limit;
    static const policies all = {&limit, 1};
    limit = (policy){.name = IS("my-plugin"), .quota = quota, .window_ms = period_ms};
    return &all;
}

EXPORT("gateway:policy/limiter@0.1.0#check")
const verdict *check(const uint32_t *index, size_t numbers, const char *bytes, size_t length) {
    static verdict verdict;
    text client = first(index, numbers, bytes, length, 0);
    verdict.is_some = client.at != NULL;
    if (!verdict.is_some) return &verdict;
    const text bucket = IS("client");
    taken taken = {0};
    take(bucket.at, bucket.length, client.at, client.length, quota, period_ms, quota, 1, &taken);
    uint64_t missing = quota - taken.remaining;
    verdict.verdict.allowed = taken.allowed;
    /* The first of the policies. */
    verdict.verdict.policy = 0;
    verdict.verdict.remaining = taken.remaining;
    /* What divides without a rest first, so that no product is too large. */
    verdict.verdict.reset_ms = missing * (period_ms / quota) + (missing * (period_ms % quota) + quota - 1) / quota;
    verdict.verdict.retry_after_ms = taken.retry_after_ms;
    return &verdict;
}

FORGET_AFTER("gateway:policy/limiter@0.1.0#check", after_check)
