#include "hash.h"

#include "assert.h"

#include <stdio.h>
#include <xxhash.h>

uint64_t
tl_hash64 (const void *data, size_t size)
{
    return XXH3_64bits (size ? data : "", size);
}

uint64_t
tl_hash64_from (uint64_t start, const void *data, size_t size)
{
    return XXH3_64bits_withSeed (size ? data : "", size, start);
}

//  tl_digest_t is XXH3's own state.
static XXH3_state_t *
s_state (tl_digest_t *self)
{
    return (XXH3_state_t *)self;
}

tl_digest_t *
tl_digest_new (void)
{
    XXH3_state_t *state = XXH3_createState ();
    tl_assert (state && XXH3_128bits_reset (state) == XXH_OK);
    return (tl_digest_t *)state;
}

void
tl_digest_add (tl_digest_t *self, const void *data, size_t size)
{
    XXH3_128bits_update (s_state (self), size ? data : "", size);
}

void
tl_digest_add_number (tl_digest_t *self, uint64_t number)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> (8 * i));
    tl_digest_add (self, bytes, sizeof bytes);
}

void
tl_digest_end (tl_digest_t **self_p, char text[TL_DIGEST_TEXT])
{
    XXH128_hash_t hash = XXH3_128bits_digest (s_state (*self_p));
    snprintf (text, TL_DIGEST_TEXT, "%016llx%016llx", (unsigned long long)hash.high64,
              (unsigned long long)hash.low64);
    XXH3_freeState (s_state (*self_p));
    *self_p = NULL;
}
