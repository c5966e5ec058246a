//  quota: see quota.h.

#include "quota.h"

#include <sys/resource.h>
#include <zmq.h>

int
tl_quota_files (size_t files, size_t spare, const char *whose, tl_error_t *err)
{
    struct rlimit limit;
    if (getrlimit (RLIMIT_NOFILE, &limit))
        return 0; //  no limit that we could know of
    size_t wanted = files + spare;
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= wanted)
        return 0;
    struct rlimit raised = limit;
    raised.rlim_cur =
        limit.rlim_max == RLIM_INFINITY || limit.rlim_max > wanted ? wanted : limit.rlim_max;
    if (raised.rlim_cur > limit.rlim_cur && setrlimit (RLIMIT_NOFILE, &raised))
        raised = limit;
    if (raised.rlim_cur >= files)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s needs %zu open files and the limit is %zu (RLIMIT_NOFILE); raise it with "
                    "ulimit -Hn %zu before starting, or with LimitNOFILE= in its service",
                    whose, files, (size_t)limit.rlim_max, wanted);
}

int
tl_quota_sockets (void *context, size_t sockets, const char *whose, tl_error_t *err)
{
    int most = zmq_ctx_get (context, ZMQ_SOCKET_LIMIT);
    if (sockets <= (size_t)most && zmq_ctx_set (context, ZMQ_MAX_SOCKETS, (int)sockets) == 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s needs %zu ZeroMQ sockets and libzmq allows %d (ZMQ_MAX_SOCKETS); spread "
                    "them over more processes",
                    whose, sockets, most);
}
