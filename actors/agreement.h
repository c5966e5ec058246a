/*  agreement: the field-by-field list of settings that every part of a run must share. Peers send theirs
    in HELLO; the broker compares each with its own and names the first that differs, with both values. */

#ifndef TL_AGREEMENT_H
#define TL_AGREEMENT_H

#include "messages/messages.h"
#include "topology/topology.h"

enum { TL_AGREEMENTS = 40 };

typedef struct {
    tl_agreement_t items[TL_AGREEMENTS];
    size_t count;
} tl_agreements_t;

//  From the topology; model (manifest hash) and tokenizer (hash) may be NULL: not known here.
void tl_agreements_make (tl_agreements_t *self, const tl_topology_t *topology, const char *model,
                         const char *tokenizer);
void tl_agreements_clear (tl_agreements_t *self);
const char *tl_agreements_find (const tl_agreements_t *self, const char *field); //  NULL if absent
//  Adds one (a value that the first peer binds).
void tl_agreements_bind (tl_agreements_t *self, const char *field, const char *value);
//  True if something differs; then field names it and both values point into the lists ("nothing" where one side lacks
//  it). The model and the tokenizer may be missing on one side.
bool tl_agreements_differ (const tl_agreements_t *self, const tl_agreement_t *theirs, size_t count,
                           const char **field, const char **our_value, const char **their_value);

#endif
