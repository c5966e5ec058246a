//  A client that leaves: told to, or because it can't go on. What is committed is saved first.

#include "actors/client_internal.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>

static void
s_on_stopped (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    const tl_error_t *failed = &self->failed;
    if (failed->code && job->err.code) {
        char *both = tl_format ("%.450s; and what it had could not be saved: %.500s", failed->text,
                                job->err.text);
        tl_client_end (self, (int)failed->code, both);
        free (both);
        return;
    }
    if (failed->code)
        tl_info ("what was committed, up to step %llu, is saved in %s",
                 (unsigned long long)job->step, self->directory);
    if (failed->code)
        tl_client_end (self, (int)failed->code, failed->text);
    else
        tl_client_end (self, (int)job->err.code, job->err.code ? job->err.text : "saved and left");
}

//  The open step is left to the others, what is committed is saved, then BYE.
static void
s_leave (tl_client_t *self, uint64_t step, const char *why)
{
    tl_client_void (self, why);
    tl_client_go (self, TL_CLIENT_STOPPING, why);
    tl_site_job_t *job = tl_client_job (self, s_on_stopped);
    job->lasting = true;
    job->step = step;
    job->directory = tl_strdup (self->directory);
    tl_client_submit (self, self->work->save, job);
}

//  What lies in our directory is the run's, so we may save there.
static bool
s_has_begun (const tl_client_t *self)
{
    return self->run && (!self->site || self->settled);
}

void
tl_client_stop (tl_client_t *self)
{
    if (self->state >= TL_CLIENT_STOPPING)
        return;
    if (s_has_begun (self))
        s_leave (self, self->step, "we are stopping");
    else
        tl_client_end (self, 0,
                       self->run ? "left before the run began: there is nothing to save" : "");
}

//  It can't go on, a number is none, say: step are committed, and what it holds is of them.
void
tl_client_fail (tl_client_t *self, uint64_t step, int code, const char *text)
{
    if (self->state == TL_CLIENT_OVER || self->failed.code)
        return;
    if (!s_has_begun (self)) {
        tl_client_end (self, code, text);
        return;
    }
    tl_fail (&self->failed, (tl_code_t)code, "%s", text);
    if (self->state != TL_CLIENT_STOPPING)
        s_leave (self, step, "it can't go on");
}
