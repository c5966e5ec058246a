/*  agreement: the field-by-field list of settings that who takes part in a run must share with it: all of them
    for its parts, fewer for those who only read or ask. Peers send theirs in HELLO; the broker compares each
    with its own and names the first that differs, with both values.                                 */

#ifndef TL_AGREEMENT_H
#define TL_AGREEMENT_H

#include "messages/messages.h"
#include "topology/topology.h"

enum { TL_AGREEMENTS = 48 };

typedef struct {
    tl_agreement_t items[TL_AGREEMENTS];
    size_t count;
} tl_agreements_t;

//  How much is to be agreed on; each includes those before it.
typedef enum {
    TL_AGREE_NAME,    //  which run: for questions of an administrator
    TL_AGREE_READING, //  what rows go through: for forwards
    TL_AGREE_ALL      //  everything: for who trains
} tl_agree_t;

//  From the topology. What only who holds files knows is added with tl_agreements_bind: "model" (manifest hash),
//  "tokenizer" (hash), "model.weights", "model.ends" and "model.trunk" (weights.h).
void tl_agreements_make (tl_agreements_t *self, const tl_topology_t *topology, tl_agree_t scope);
void tl_agreements_clear (tl_agreements_t *self);
const char *tl_agreements_find (const tl_agreements_t *self, const char *field); //  NULL if absent
//  Adds one: of one's own files, or at the broker the value of the first peer that has it. value is copied.
void tl_agreements_bind (tl_agreements_t *self, const char *field, const char *value);
//  True if it is about what files hold, and not a setting.
bool tl_agreement_of_files (const char *field);
//  True if something differs; then field names it and both values point into the lists ("nothing" where one side lacks
//  it). Only what scope asks for must be there; what is known from files may be missing on one side.
bool tl_agreements_differ (const tl_agreements_t *self, tl_agree_t scope,
                           const tl_agreement_t *theirs, size_t count, const char **field,
                           const char **our_value, const char **their_value);

#endif
