/*  amx: what product_amx.c and bf16_loops.c share. Included where AVX-512 and AMX are compiled for.      */

#ifndef TL_KERNELS_AMX_H
#define TL_KERNELS_AMX_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

//  Eight tiles of 16 rows of 64 bytes. Tile registers belong to a thread and cost a context switch while in use.
static inline void
tl_amx_begin (void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t columns[16]; //  bytes
        uint8_t rows[16];
    } config = {.palette = 1};
    for (size_t tile = 0; tile < 8; tile++) {
        config.columns[tile] = 64;
        config.rows[tile] = 16;
    }
    _tile_loadconfig (&config);
}

static inline void
tl_amx_end (void)
{
    _tile_release ();
}

//  16 rows of 16 dwords become columns.
static inline void
tl_turn_16x16 (__m512i r[16])
{
    __m512i t[16];
    for (size_t i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32 (r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32 (r[2 * i], r[2 * i + 1]);
    }
    for (size_t i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64 (t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64 (t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64 (t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64 (t[4 * i + 1], t[4 * i + 3]);
    }
    for (size_t i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4 (r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4 (r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4 (r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4 (r[i + 8], r[i + 12], 0xdd);
    }
    for (size_t i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4 (t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4 (t[i], t[i + 8], 0xdd);
    }
}

#endif
