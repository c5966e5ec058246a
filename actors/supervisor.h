/*  supervisor: starts the actors of a topology that belong on this machine, each as a process of its own,
    watches them, starts again what died, and ends them all together.

    What the actors tell (events, one JSON object a line) goes to on_event; what they log goes to
    RUN/trunkline.log, warnings and errors to on_line too. It computes nothing and opens no socket.  */

#ifndef TL_SUPERVISOR_H
#define TL_SUPERVISOR_H

#include "error.h"
#include "topology/topology.h"

#include <jansson.h>

typedef struct {
    const char *program;          //  path of this executable
    const char *topology;         //  path of the file, for the children
    const char *const *overrides; //  --set of the children
    size_t override_count;
    bool stay, replace, resume, fresh; //  the broker's options
    void (*on_event) (void *arg, const char *part, const json_t *event);
    void (*on_line) (void *arg, const char *line); //  something for a person
    void *arg;
} tl_supervisor_options_t;

//  Runs until everything it started has ended. Returns the exit code; err has the sentence.
int tl_supervisor_run (const tl_topology_t *topology, const tl_supervisor_options_t *options,
                       tl_error_t *err);

#endif
