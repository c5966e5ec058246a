//  engine: see engine.h.

#include "cli/engine.h"

#include <string.h>

static int
s_open_chain (tl_engine_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const char *adapter = self->of->adapter;
    if (self->of->saved)
        self->chain = tl_chain_split (topology, self->model, err);
    else if (topology && adapter && topology->tune.parts != TL_PART_ALL) {
        //  An adapter of some parts only needs the topology to say which.
        self->chain = tl_chain_of (topology, self->model, err);
        return self->chain ? tl_chain_load_adapter (self->chain, adapter, err) : -1;
    } else
        self->chain = tl_chain_plain (self->model, adapter, err);
    return self->chain ? 0 : -1;
}

int
tl_engine_open (tl_engine_t *self, const tl_site_options_t *of, const tl_topology_t *topology,
                const char *path, size_t threads, tl_error_t *err)
{
    *self = (tl_engine_t){.of = of, .topology = topology};
    if (of->live && topology->split.none)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: with split: none a site has the whole model and there is no worker to "
                        "ask; give --saved in place of --live",
                        topology->source);
    path = topology ? topology->model.path : path;
    if (threads == 0)
        threads = topology ? (size_t)topology->workers[0].threads : 1;
    //  Through the worker nothing computes but the site, which opens itself.
    if (!of->live)
        tl_kernels_use ((int)threads);
    if (!(self->model = topology ? tl_model_of (topology, err) : tl_model_open (path, err)))
        return -1;
    self->config = tl_model_config (self->model);
    if (!(self->tokenizer = tl_tokenizer_open (path, self->config, err)))
        return -1;
    return of->live ? 0 : s_open_chain (self, err);
}

void
tl_engine_close (tl_engine_t *self)
{
    tl_reading_destroy (&self->reading);
    tl_chain_destroy (&self->chain);
    tl_tokenizer_destroy (&self->tokenizer);
    tl_model_destroy (&self->model);
}

int
tl_engine_site (tl_engine_t *self, size_t client, tl_error_t *err)
{
    self->client = client;
    return self->of->saved ? tl_site_load_saved (self->topology, client, self->chain, err) : 0;
}

//  From what the reader tells to what the callers of the engine want to know.
typedef struct {
    tl_over_fn *on_over;
    void *arg;
} s_over_t;

static void
s_on_written (void *arg, size_t done, size_t count)
{
    s_over_t *over = arg;
    if (over->on_over)
        over->on_over (over->arg, done - 1);
}

int
tl_engine_score (tl_engine_t *self, const tl_dataset_t *data, double *nll, tl_done_fn *done,
                 void *arg, tl_error_t *err)
{
    if (self->chain) {
        tl_chain_evaluate (self->chain, data, nll, done, arg);
        return 0;
    }
    tl_reader_options_t reader;
    tl_site_reader (self->of, &reader);
    reader.on_progress = done;
    reader.arg = arg;
    return tl_reader_score (self->topology, self->client, &reader, data, nll, err) ? -1 : 0;
}

int
tl_engine_write (tl_engine_t *self, tl_writing_t *const *texts, size_t count, size_t at_once,
                 const volatile sig_atomic_t *stop, tl_over_fn *on_over, void *arg, tl_error_t *err)
{
    if (self->chain)
        return tl_write (self->chain, texts, count, at_once, stop, on_over, arg, err);
    tl_reader_options_t reader;
    tl_site_reader (self->of, &reader);
    s_over_t over = {on_over, arg};
    reader.on_progress = s_on_written;
    reader.arg = &over;
    return tl_reader_write (self->topology, self->client, &reader, texts, count, err) ? -1 : 0;
}

int
tl_engine_answer (tl_engine_t *self, tl_writing_t *text, const volatile sig_atomic_t *stop,
                  tl_error_t *err)
{
    if (!self->chain)
        return tl_engine_write (self, &text, 1, 1, stop, NULL, NULL, err);
    if (!self->reading)
        self->reading = tl_reading_new (self->chain, tl_writing_most (text));
    return tl_write_on (self->reading, text, self->config->vocab, stop, err);
}
