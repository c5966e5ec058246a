/*  keys: CURVE key files and who may be who.

    A keys directory holds, per name, ROLE.NAME.key (public, 0644) and ROLE.NAME.secret (0600): small text
    files. Roles: broker (name "broker"), aggregator (name "aggregator"), worker, client, admin. Whoever runs the broker needs every public
    file and the broker's secret; a peer needs its own secret and the broker's public file.
    Fingerprints are the first 16 hex digits of BLAKE2b of the public key; secrets are never logged.  */

#ifndef TL_KEYS_H
#define TL_KEYS_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char role[16]; //  "broker", "aggregator", "worker", "client", "admin"
    char name[64];
    char public_text[41]; //  Z85
    char fingerprint[17];
    int64_t made; //  seconds since 1970
} tl_key_t;

typedef struct {
    char public_text[41], secret_text[41];
} tl_pair_t;

//  Makes a pair unless it exists (returns 1 then, 0 when made, -1 on failure). Directory is made 0700.
int tl_keys_make (const char *directory, const char *role, const char *name, tl_error_t *err);
//  All public keys of the directory, sorted by role and name; the caller frees. Two names with one key, or a key
//  in two roles, are refused.
int tl_keys_list (const char *directory, tl_key_t **keys, size_t *count, tl_error_t *err);
//  The same for somebody who wants to see them all: what is wrong goes to on_wrong, one sentence a file, and the rest is
//  listed. -1 only if the directory can't be read.
typedef void (tl_keys_wrong_fn) (void *arg, const tl_error_t *wrong);
int tl_keys_look (const char *directory, tl_key_t **keys, size_t *count, tl_keys_wrong_fn *on_wrong,
                  void *arg, tl_error_t *err);
//  Reads one's own pair; refuses a secret file that others can read (naming chmod 600).
int tl_keys_pair (const char *directory, const char *role, const char *name, tl_pair_t *pair,
                  tl_error_t *err);
//  The broker's public key alone.
int tl_keys_broker (const char *directory, char public_text[41], tl_error_t *err);
void tl_keys_fingerprint (const char *public_text, char fingerprint[17]);

#endif
