/*  credentials: the key files that a part of a run needs: its own pair, and the broker's public key.  */

#ifndef TL_CREDENTIALS_H
#define TL_CREDENTIALS_H

#include "net/keys.h"
#include "topology/topology.h"

//  role: "broker" and "aggregator" (name is not looked at), "worker", "client", "reader" (has its client's key) or "admin". The caller
//  wipes the pair. -1 and a sentence naming the file.
int tl_credentials_read (const tl_topology_t *topology, const char *role, const char *name,
                         tl_pair_t *pair, char broker[41], tl_error_t *err);
//  Are they there, and good? For who has something long to do first, or starts others.
int tl_credentials_check (const tl_topology_t *topology, const char *role, const char *name,
                          tl_error_t *err);

#endif
