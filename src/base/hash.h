//  hash: a fast 64-bit hash (XXH3) for checksums, caches and tables. Not against an adversary.

#ifndef TL_HASH_H
#define TL_HASH_H

#include <stddef.h>
#include <stdint.h>

//  The same bytes give the same value on every machine and in every release. data may be NULL when
//  size is 0.
uint64_t tl_hash64 (const void *data, size_t size);

//  The same with a start value, to chain parts: hash = tl_hash64_from (hash, part, size).
uint64_t tl_hash64_from (uint64_t start, const void *data, size_t size);

#endif
