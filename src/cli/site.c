//  site: see site.h.

#include "cli/site.h"

#include "actors/save.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

int
tl_site_check (const tl_site_options_t *options, const char *verb, bool topology, tl_error_t *err)
{
    if (options->live && options->saved)
        return tl_fail (err, TL_BAD_INPUT, "%s: --live and --saved exclude each other; give one",
                        verb);
    if ((options->live || options->saved || options->site) && !topology)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %s is about a site of a topology; name the TOPOLOGY", verb,
                        options->live    ? "--live"
                        : options->saved ? "--saved"
                                         : "--site");
    if (options->base && (!options->live || options->adapter))
        return tl_fail (
            err, TL_BAD_INPUT, "%s: --base goes with --live and without --adapter; %s", verb,
            options->live ? "leave one of the two out"
                          : "without --live the model is untrained anyway, leave it out");
    if (options->saved && options->adapter)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: --saved takes the run's own adapters; leave --adapter out", verb);
    return 0;
}

int
tl_site_index (const tl_site_options_t *options, const tl_topology_t *topology, const char *verb,
               tl_error_t *err)
{
    if (!options->site) {
        if (topology->client_count == 1)
            return 0;
        return tl_fail (err, TL_BAD_INPUT, "%s: %s has %zu clients; say which with --site NAME",
                        verb, topology->source, topology->client_count);
    }
    int index = tl_topology_client (topology, options->site);
    if (index < 0)
        tl_fail (err, TL_BAD_INPUT, "%s has no client '%s'; name one of its clients",
                 topology->source, options->site);
    return index;
}

static int
s_load (const tl_topology_t *topology, const char *name, tl_part_t *part, tl_error_t *err)
{
    if (tl_part_tensors (part) == 0)
        return 0;
    char *saves = tl_save_directory (topology, name);
    char *directory = tl_format ("%s/adapter", saves);
    int rc = 0;
    if (!tl_exists (directory))
        rc =
            tl_fail (err, TL_BAD_INPUT,
                     "%s isn't there: what %s trains was never saved on this machine; train first, "
                     "or ask the running worker with --live",
                     directory, name);
    else
        rc = tl_part_load_adapter (part, directory, err);
    free (directory);
    free (saves);
    return rc;
}

void
tl_site_warn_of_steps (const tl_topology_t *topology, size_t client)
{
    const char *site = topology->clients[client].name, *worker = topology->workers[0].name;
    char *mine = tl_save_directory (topology, site), *trunk = tl_save_directory (topology, worker);
    int64_t steps[2];
    if (!tl_save_agree (mine, trunk, steps))
        tl_warn ("%s saved its adapter at step %lld%s, %s at step %lld: together they are no state "
                 "the run ever was in, and may do worse; a run that ends in order saves all parts "
                 "at one step",
                 site, (long long)steps[0], steps[0] == steps[1] ? " of another run" : "", worker,
                 (long long)steps[1]);
    free (trunk);
    free (mine);
}

int
tl_site_load_saved (const tl_topology_t *topology, size_t client, tl_chain_t *chain,
                    tl_error_t *err)
{
    bool whole = chain->part_count == 1; //  split: none
    if (!whole)
        tl_site_warn_of_steps (topology, client);
    if (s_load (topology, topology->clients[client].name, chain->parts[0], err))
        return -1;
    return whole ? 0 : s_load (topology, topology->workers[0].name, chain->parts[1], err);
}

void
tl_site_reader (const tl_site_options_t *options, tl_reader_options_t *reader)
{
    *reader = (tl_reader_options_t){.adapter = options->adapter,
                                    .base = options->base,
                                    .timeout_ms = (int64_t)options->timeout_s * 1000};
}
