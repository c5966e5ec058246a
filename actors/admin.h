/*  admin: one question to a running broker, on its control socket, with the administrator's key.    */

#ifndef TL_ADMIN_H
#define TL_ADMIN_H

#include "error.h"
#include "topology/topology.h"

#include <jansson.h>

//  The broker's report (the caller decrefs it), or NULL: nobody answered within timeout_ms (TL_TIMEOUT), or it refused us.
json_t *tl_admin_status (const tl_topology_t *topology, int64_t timeout_ms, tl_error_t *err);
//  Asks the broker to commit or abandon the open step, save, and end. Returns when its BYE has come.
int tl_admin_stop (const tl_topology_t *topology, int64_t timeout_ms, tl_error_t *err);

#endif
