/*  random: Philox4x32-10 with the 128-bit hash of the stream as key and upper counter, so that only
    the block number changes along a stream. Each kind of draw has a stream of its own, so a normal
    and an integer drawn for the same element are independent.                                     */

#include "random.h"
#include "hash.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

typedef enum { S_INTEGER, S_BELOW, S_UNIFORM, S_NORMAL } s_kind_t;

typedef struct {
    uint32_t key[2];   //  Philox key
    uint32_t upper[2]; //  counter words 2 and 3
} s_address_t;

void
tl_philox (const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static s_address_t
s_address (const tl_stream_t *stream, s_kind_t kind)
{
    uint64_t words[6] = {stream->seed, (uint64_t)stream->purpose,
                         stream->step, stream->sequence,
                         stream->name, (uint64_t)kind};
    XXH128_hash_t hash = XXH3_128bits (words, sizeof words);
    return (s_address_t){{(uint32_t)hash.low64, (uint32_t)(hash.low64 >> 32)},
                         {(uint32_t)hash.high64, (uint32_t)(hash.high64 >> 32)}};
}

static void
s_block (const s_address_t *address, uint64_t block, uint32_t out[4])
{
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), address->upper[0],
                           address->upper[1]};
    tl_philox (counter, address->key, out);
}

//  64 fresh bits for one element: two elements a block.
static uint64_t
s_bits64 (const tl_stream_t *stream, s_kind_t kind, uint64_t element)
{
    uint32_t out[4];
    s_address_t address = s_address (stream, kind);
    s_block (&address, element / 2, out);
    size_t at = element % 2 * 2;
    return (uint64_t)out[at + 1] << 32 | out[at];
}

uint64_t
tl_random_name (const char *name)
{
    return tl_hash64 (name, strlen (name));
}

uint32_t
tl_random_u32 (const tl_stream_t *stream, uint64_t element)
{
    uint32_t out[4];
    s_address_t address = s_address (stream, S_INTEGER);
    s_block (&address, element / 4, out);
    return out[element % 4];
}

uint64_t
tl_random_below (const tl_stream_t *stream, uint64_t element, uint64_t limit)
{
    //  Upper half of a 64 x 64 bit product; the bias is below limit / 2^64.
    unsigned __int128 product = (unsigned __int128)s_bits64 (stream, S_BELOW, element) * limit;
    return (uint64_t)(product >> 64);
}

double
tl_random_uniform (const tl_stream_t *stream, uint64_t element)
{
    return (double)(s_bits64 (stream, S_UNIFORM, element) >> 11) * 0x1p-53;
}

double
tl_random_normal (const tl_stream_t *stream, uint64_t element)
{
    //  Box-Muller: one block gives a pair. 1 - u is in (0, 1], so the logarithm is finite.
    uint32_t out[4];
    s_address_t address = s_address (stream, S_NORMAL);
    s_block (&address, element / 2, out);
    double u = (double)(((uint64_t)out[1] << 32 | out[0]) >> 11) * 0x1p-53;
    double v = (double)(((uint64_t)out[3] << 32 | out[2]) >> 11) * 0x1p-53;
    double radius = sqrt (-2 * log (1 - u)), angle = 2 * M_PI * v;
    return element % 2 ? radius * sin (angle) : radius * cos (angle);
}

void
tl_random_keep (const tl_stream_t *stream, uint64_t first, size_t count, float probability_drop,
                float *keep)
{
    //  Dropped when the draw is below p * 2^32, which is exact in double.
    double limit = (double)probability_drop * 0x1p32;
    float scale = probability_drop < 1 ? 1 / (1 - probability_drop) : 0;
    s_address_t address = s_address (stream, S_INTEGER);
    uint32_t out[4];
    for (size_t i = 0; i < count; i++) {
        uint64_t element = first + i;
        if (i == 0 || element % 4 == 0)
            s_block (&address, element / 4, out);
        keep[i] = out[element % 4] < limit ? 0 : scale;
    }
}
