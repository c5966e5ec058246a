/*  tiny-glm over slow links: 8 clients, each behind 20 ms and 100 Mbit/s of its own, 8 micros of 256 rows a step, 32 of each
    client. Batch
    with overlap against serial, and against the bound: the longer of computing (the same batch without links) and the
    link, 3 round trips, and one micro to fill and one to drain.                                    */

#include "bench/bench_schedule.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS = 8, MICROS = 8, ROWS = 32, LENGTH = 32, HIDDEN = 256, BYTES = 2 };
//  ROWS: of a client in a micro, one sequence.
static const double s_rtt_ms = 20, s_mbit_s = 100;

//  Seconds a round of all clients; 0 if the run failed.
static double
s_round (bench_t *self, const char *mode, bool far, const char *data)
{
    bool serial = strcmp (mode, "serial") == 0;
    play_t spec = {.name = far ? "far" : "near",
                   .mode = mode,
                   .workers = 1,
                   .clients = CLIENTS,
                   .rounds = self->quick ? 4
                             : serial    ? 8
                                         : 12,
                   .micros = MICROS,
                   .rows = ROWS,
                   .sequences = MICROS * ROWS / LENGTH,
                   .model = "models/tiny-glm",
                   .data = data,
                   .settings = "tune: {method: lora, rank: 8, alpha: 16, dropout: 0}\n",
                   .rtt_ms = far ? s_rtt_ms : 0,
                   .mbit_s = s_mbit_s};
    played_t result;
    play (&self->stage, &spec, &result);
    double seconds = result.good ? played_round (&result, 2) : 0;
    played_clear (&result);
    fprintf (stderr, "%s %s: %.3f s a round\n", spec.name, mode, seconds);
    return seconds;
}

void
bench_schedule_links (bench_t *self)
{
    if (!tl_exists ("models/tiny-glm/model.safetensors")) {
        bench_skip (self, "linked_batch_over_serial", "models/tiny-glm has no weights");
        return;
    }
    char *data = bench_words (self);
    double compute = s_round (self, "batch", false, data);
    double batch = s_round (self, "batch", true, data);
    double serial = s_round (self, "serial", true, data);
    free (data);
    //  Two tensors each way of every micro, each way for itself.
    double micro_link = (double)ROWS * HIDDEN * BYTES * 8 / (s_mbit_s * 1e6);
    double link = 2 * MICROS * micro_link, micro_compute = compute / MICROS;
    double fill = micro_link + (micro_compute > micro_link ? micro_compute : micro_link);
    double bound = (compute > link ? compute : link) + 3e-3 * s_rtt_ms + fill;
    json_object_set_new (self->detail, "links",
                         json_pack ("{sfsfsfsfsfsf}", "batch_s", batch, "serial_s", serial,
                                    "compute_s", compute, "link_s", link, "fill_and_drain_s", fill,
                                    "bound_s", bound));
    if (compute > 0 && batch > 0 && serial > 0) {
        bench_put (self, "linked_batch_over_serial", serial / batch);
        bench_put (self, "linked_batch_over_bound", bound / batch);
    } else
        bench_skip (self, "linked_batch_over_serial", "a run failed; look into the log");
}
