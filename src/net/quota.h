/*  quota: what this process may have open. Sockets are files; the usual soft limit of 1024 is few for a
    broker of hundreds of peers, and the kernel lets a process raise its own up to the hard one.     */

#ifndef TL_QUOTA_H
#define TL_QUOTA_H

#include "error.h"

#include <stddef.h>

//  Raises the limit of open files to at least files; spare more are taken where the hard limit allows. -1 and a sentence
//  naming the limit when it doesn't; whose: "a broker of 1000 peers".
int tl_quota_files (size_t files, size_t spare, const char *whose, tl_error_t *err);
//  Lets a fresh ZeroMQ context have so many sockets; -1 and a sentence.
int tl_quota_sockets (void *context, size_t sockets, const char *whose, tl_error_t *err);

#endif
