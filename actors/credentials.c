//  credentials: see credentials.h.

#include "credentials.h"

#include <sodium.h>
#include <string.h>

int
tl_credentials_read (const tl_topology_t *topology, const char *role, const char *name,
                     tl_pair_t *pair, char broker[41], tl_error_t *err)
{
    if (strcmp (role, "broker") == 0 || strcmp (role, "aggregator") == 0)
        name = role;
    if (strcmp (role, "reader") == 0)
        role = "client";
    if (tl_keys_pair (topology->keys, role, name, pair, err))
        return -1;
    return tl_keys_broker (topology->keys, broker, err);
}

int
tl_credentials_check (const tl_topology_t *topology, const char *role, const char *name,
                      tl_error_t *err)
{
    tl_pair_t pair;
    char broker[41];
    int rc = tl_credentials_read (topology, role, name, &pair, broker, err);
    sodium_memzero (&pair, sizeof pair);
    return rc;
}
