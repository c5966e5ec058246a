/*  random: Philox4x32-10 with the 128-bit hash of the stream as key and upper counter, so that only
    the block number changes along a stream. Each kind of draw has a stream of its own, so a normal
    and an integer drawn for the same element are independent.                                     */

#include "random.h"
#include "hash.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>

//  Philox's constants.
#define S_MULTIPLIER0 0xD2511F53u
#define S_MULTIPLIER1 0xCD9E8D57u
#define S_WEYL0 0x9E3779B9u
#define S_WEYL1 0xBB67AE85u

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
        k0 += S_WEYL0;
        k1 += S_WEYL1;
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

//  32 bits in each 64-bit lane, as one vector multiplication wants them; upper halves are rubbish.
typedef struct {
    __m256i c[4];
} s_lanes_t;

__attribute__ ((target ("avx2"))) static inline s_lanes_t
s_four_blocks (const s_address_t *address, uint64_t block)
{
    __m256i number =
        _mm256_add_epi64 (_mm256_set1_epi64x ((long long)block), _mm256_set_epi64x (3, 2, 1, 0));
    __m256i c0 = number, c1 = _mm256_srli_epi64 (number, 32);
    __m256i c2 = _mm256_set1_epi64x (address->upper[0]);
    __m256i c3 = _mm256_set1_epi64x (address->upper[1]);
    __m256i multiplier0 = _mm256_set1_epi64x (S_MULTIPLIER0);
    __m256i multiplier1 = _mm256_set1_epi64x (S_MULTIPLIER1);
    uint32_t k0 = address->key[0], k1 = address->key[1];
    for (int round = 0; round < 10; round++) {
        __m256i p0 = _mm256_mul_epu32 (multiplier0, c0), p1 = _mm256_mul_epu32 (multiplier1, c2);
        c0 = _mm256_xor_si256 (_mm256_xor_si256 (_mm256_srli_epi64 (p1, 32), c1),
                               _mm256_set1_epi64x (k0));
        c1 = p1;
        c2 = _mm256_xor_si256 (_mm256_xor_si256 (_mm256_srli_epi64 (p0, 32), c3),
                               _mm256_set1_epi64x (k1));
        c3 = p0;
        k0 += S_WEYL0;
        k1 += S_WEYL1;
    }
    return (s_lanes_t){{c0, c1, c2, c3}};
}

//  The masks of groups times four whole blocks; the same integers as s_keep_few, four at a time.
__attribute__ ((target ("avx2"))) static void
s_keep_avx2 (const s_address_t *address, uint64_t block, size_t groups, uint32_t drop_below,
             float scale, float *keep)
{
    //  Comparison is signed, so both sides are moved by half the range.
    __m256i half = _mm256_set1_epi32 (INT32_MIN);
    __m256i limit = _mm256_xor_si256 (_mm256_set1_epi32 ((int32_t)drop_below), half);
    __m256 kept = _mm256_set1_ps (scale);
    for (size_t i = 0; i < groups; i++, keep += 16) {
        s_lanes_t lanes = s_four_blocks (address, block + 4 * i);
        //  Words 0 and 1, 2 and 3 of each block side by side, then blocks 0 and 2, 1 and 3.
        __m256i low = _mm256_blend_epi32 (lanes.c[0], _mm256_slli_epi64 (lanes.c[1], 32), 0xaa);
        __m256i high = _mm256_blend_epi32 (lanes.c[2], _mm256_slli_epi64 (lanes.c[3], 32), 0xaa);
        __m256i even = _mm256_unpacklo_epi64 (low, high), odd = _mm256_unpackhi_epi64 (low, high);
        __m256i first = _mm256_permute2x128_si256 (even, odd, 0x20);
        __m256i second = _mm256_permute2x128_si256 (even, odd, 0x31);
        __m256i drop1 = _mm256_cmpgt_epi32 (limit, _mm256_xor_si256 (first, half));
        __m256i drop2 = _mm256_cmpgt_epi32 (limit, _mm256_xor_si256 (second, half));
        _mm256_storeu_ps (keep, _mm256_andnot_ps (_mm256_castsi256_ps (drop1), kept));
        _mm256_storeu_ps (keep + 8, _mm256_andnot_ps (_mm256_castsi256_ps (drop2), kept));
    }
}

//  The mask one block after another: what doesn't fill a vector, and CPUs without AVX2.
static void
s_keep_few (const s_address_t *address, uint64_t first, size_t count, uint32_t drop_below,
            float scale, float *keep)
{
    uint32_t out[4];
    for (size_t i = 0; i < count; i++) {
        uint64_t element = first + i;
        if (i == 0 || element % 4 == 0)
            s_block (address, element / 4, out);
        keep[i] = out[element % 4] < drop_below ? 0 : scale;
    }
}

void
tl_random_keep (const tl_stream_t *stream, uint64_t first, size_t count, float probability_drop,
                float *keep)
{
    if (!(probability_drop < 1)) {
        for (size_t i = 0; i < count; i++)
            keep[i] = 0;
        return;
    }
    //  Dropped when the draw is below p * 2^32, which is exact in double.
    uint32_t drop_below = probability_drop > 0 ? (uint32_t)ceil (probability_drop * 0x1p32) : 0;
    float scale = probability_drop > 0 ? 1 / (1 - probability_drop) : 1;
    s_address_t address = s_address (stream, S_INTEGER);
    size_t head = (4 - first % 4) % 4;
    head = head < count ? head : count;
    s_keep_few (&address, first, head, drop_below, scale, keep);
    size_t done = head;
    if (__builtin_cpu_supports ("avx2")) {
        size_t groups = (count - head) / 16;
        s_keep_avx2 (&address, (first + head) / 4, groups, drop_below, scale, keep + head);
        done += groups * 16;
    }
    s_keep_few (&address, first + done, count - done, drop_below, scale, keep + done);
}
