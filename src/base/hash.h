//  hash: a fast hash (XXH3) of 64 bits for checksums, caches and tables, of 128 for what may be long. Not against an
//  adversary.

#ifndef TL_HASH_H
#define TL_HASH_H

#include <stddef.h>
#include <stdint.h>

//  The same bytes give the same value on every machine and in every release. data may be NULL when
//  size is 0.
uint64_t tl_hash64 (const void *data, size_t size);

//  The same with a start value, to chain parts: hash = tl_hash64_from (hash, part, size).
uint64_t tl_hash64_from (uint64_t start, const void *data, size_t size);

//  128 bits of a stream of bytes, in whatever pieces it comes.
typedef struct tl_digest tl_digest_t;
enum { TL_DIGEST_TEXT = 33 }; //  32 hex digits and a NUL

tl_digest_t *tl_digest_new (void);
void tl_digest_add (tl_digest_t *self, const void *data, size_t size);
void tl_digest_add_number (tl_digest_t *self, uint64_t number);
//  Writes it, and frees.
void tl_digest_end (tl_digest_t **self_p, char text[TL_DIGEST_TEXT]);

#endif
