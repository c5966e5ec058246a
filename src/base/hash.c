#include "hash.h"

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
