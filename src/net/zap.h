/*  zap: our own ZAP handler. Answers on inproc://zeromq.zap.01 of one context, on the caller's own loop:
    bind it before the context's first socket, poll its socket, call tl_zap_serve when it is readable.
    Maps public key -> (name, role), lets a role into the domains it belongs to and puts "role/name" into
    the connection's User-Id. Refusals are counted, and told with the key's fingerprint.            */

#ifndef TL_ZAP_H
#define TL_ZAP_H

#include "keys.h"
#include "outsiders.h"

typedef struct tl_zap tl_zap_t;

//  outsiders hears of refusals and must outlive it; NULL: nothing is logged.
tl_zap_t *tl_zap_new (void *context, const char *keys_directory, tl_outsiders_t *outsiders,
                      tl_error_t *err);
void tl_zap_destroy (tl_zap_t **self_p);
void *tl_zap_socket (tl_zap_t *self); //  to poll for input
void tl_zap_serve (tl_zap_t *self);   //  answers all requests that wait; never blocks
uint64_t tl_zap_refused_unknown (const tl_zap_t *self); //  keys nobody knows
uint64_t tl_zap_refused_role (const tl_zap_t *self);    //  known keys in the wrong place

#endif
