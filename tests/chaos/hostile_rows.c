/*  A worker with a valid key whose rows can't be right, with real clients, readers and a real broker. They end whoever waits
    for them with a sentence; another process takes its place and the run goes on.                   */

#include "chaos/trunk.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  --- rows that can't be right

//  Sent instead of what is due. Columns 0: the model's; rows 0: as many as are due, and more.
typedef struct {
    tl_type_t type;
    int code; //  that the client ends with
    const char *words;
    uint64_t more, count; //  of pieces
    peer_piece_t piece[2];
} wrong_t;

static float s_nan[256 * TRUNK_HIDDEN]; //  each is one

static const wrong_t s_wrong[] = {
    {TL_HIDDEN,
     2,
     "came for offset 65536 where 65536 bytes at 0 were due",
     0,
     1,
     {{.rows = 1024, .offset = TL_CHUNK_LEAST}}},
    {TL_HIDDEN, 2, "16 columns where 32 were expected", 0, 1, {{.columns = TRUNK_HIDDEN / 2}}},
    {TL_HIDDEN, 2, "1 columns where 32 were expected", 0, 1, {{.dtype = TL_W_U8, .columns = 1}}},
    {TL_HIDDEN, 2, "doesn't have the checksum", 0, 1, {{.damaged = true}}},
    {TL_HIDDEN, 2, "raise wire.max_message_mb", 0, 1, {{.rows = 10000}}},
    {TL_HIDDEN, 2, "rows came for micro 1 of step", 1, 1, {{.rows = 0}}},
    {TL_HIDDEN,
     2,
     "belongs to another tensor",
     0,
     2,
     {{.rows = 1024}, {.rows = 1025, .offset = TL_CHUNK_LEAST}}},
    {TL_HIDDEN, 2, "where 0 were due", 0, 2, {{.rows = 0}, {.rows = 0}}},
    //  A trunk that blew up sends that, too: lower the learning rate
    {TL_HIDDEN, 4, "the loss's gradient is not finite at step", 0, 1, {{.bytes = s_nan}}},
    {TL_GRAD_IN, 2, "rows came for micro 1 of step", 1, 1, {{.rows = 0}}},
    {TL_GRAD_IN,
     2,
     "came for offset 65536 where 65536 bytes at 0 were due",
     0,
     1,
     {{.rows = 1024, .offset = TL_CHUNK_LEAST}}},
    {TL_GRAD_IN, 2, "where 0 were due", 0, 2, {{.rows = 0}, {.rows = 0}}},
    {TL_GRAD_IN, 4, "the gradient is not finite at step", 0, 1, {{.bytes = s_nan}}},
};

static void
s_send_pieces (peer_t *worker, const wrong_t *wrong, uint64_t step, uint64_t due, const char *to)
{
    for (size_t i = 0; i < wrong->count; i++) {
        peer_piece_t piece = wrong->piece[i];
        piece.dtype = piece.dtype ? piece.dtype : TL_W_F32;
        piece.rows = piece.rows ? piece.rows : due + wrong->more;
        piece.columns = piece.columns ? piece.columns : TRUNK_HIDDEN;
        trunk_send_rows (worker, wrong->type, step, 0, &piece, to);
    }
}

//  The client that came last has ended so; the step is over, and another process takes its place.
static void
s_expect_end (trunk_run_t *run, uint64_t step, int code, const char *words)
{
    int is = part_wait (run->site);
    if (is != code || !strstr (part_err (run->site), words))
        stage_fail (run->stage, "expected code %d with \"%s\", got code %d", code, words, is);
    peer_wait (run->worker, TL_LEAVE);
    trunk_send_committed (run->worker, step, 0, "broker");
    run->site = stage_run (run->stage, "client", "site-0", NULL);
}

static void
s_send_wrong (trunk_run_t *run, const wrong_t *wrong)
{
    peer_t *worker = run->worker;
    uint64_t rows = trunk_wait_rows (worker, TL_ACTIVATION), step = worker->of_step;
    if (wrong->type == TL_GRAD_IN) {
        trunk_send_good (worker, TL_HIDDEN, step, rows, "site-0");
        peer_wait (worker, TL_GRADIENT);
    }
    s_send_pieces (worker, wrong, step, rows, "site-0");
    s_expect_end (run, step, wrong->code, wrong->words);
}

static void
s_rows (void)
{
    trunk_run_t run = trunk_begin (1, TRUNK_LONG, TRUNK_TUNE);
    trunk_start (&run, NULL);
    memset (s_nan, 0xff, sizeof s_nan);
    for (size_t i = 0; i < sizeof s_wrong / sizeof *s_wrong; i++)
        s_send_wrong (&run, &s_wrong[i]);
    //  GRAD_IN in the place of HIDDEN
    uint64_t rows = trunk_wait_rows (run.worker, TL_ACTIVATION), step = run.worker->of_step;
    trunk_send_good (run.worker, TL_GRAD_IN, step, rows, "site-0");
    s_expect_end (&run, step, 2, "where 0 were due");
    //  As other numbers than wire.dtype says: they are numbers
    const peer_piece_t half = {.dtype = TL_W_BF16, .columns = TRUNK_HIDDEN};
    const wrong_t halves[] = {{TL_HIDDEN, 0, "", 0, 1, {half}}, {TL_GRAD_IN, 0, "", 0, 1, {half}}};
    rows = trunk_wait_rows (run.worker, TL_ACTIVATION), step = run.worker->of_step;
    s_send_pieces (run.worker, &halves[0], step, rows, "site-0");
    peer_wait (run.worker, TL_GRADIENT);
    s_send_pieces (run.worker, &halves[1], step, rows, "site-0");
    peer_wait (run.worker, TL_COMMIT);
    trunk_send_committed (run.worker, step, 10, "site-0");
    trunk_send_committed (run.worker, step, 10, "broker");
    trunk_expect_step (&run, step);
    trunk_end (&run);
}

//  --- held-out text

//  Of the two examples in short.jsonl: one request of one chunk.
static const wrong_t s_answers[] = {
    {TL_FORWARDED, 0, "", 0, 2, {{.rows = 0}, {.rows = 0}}}, //  twice: ignored
    {TL_FORWARDED, 2, "FORWARDED 1", 0, 1, {{.damaged = true}}},
    {TL_FORWARDED, 2, "FORWARDED 1", 0, 1, {{.rows = 1024, .offset = TL_CHUNK_LEAST}}},
    {TL_FORWARDED, 2, "rows came", 1, 1, {{.rows = 0}}},
    {TL_FORWARDED, 4, "not finite", 0, 1, {{.bytes = s_nan}}},
};

static char *
s_short_text (const stage_t *stage)
{
    const char *directory = stage_case (stage)->directory;
    char *path = tl_format ("%s/short.jsonl", directory);
    char *command = tl_format ("head -n 2 %s/0.jsonl > %s", directory, path);
    stage_check (stage, system (command) == 0, command);
    free (command);
    return path;
}

//  A run of one step, up to the FORWARD of its only client.
static trunk_run_t
s_begin_scoring (void)
{
    trunk_run_t run = trunk_begin (1, 1, TRUNK_TUNE);
    char *path = s_short_text (run.stage), *set = tl_format ("clients.0.eval=%s", path);
    trunk_start (&run, set);
    free (path);
    free (set);
    trunk_whole_step (run.worker, "site-0");
    peer_wait (run.worker, TL_SAVE);
    trunk_send_state (run.worker, 1, 100, 0, false);
    trunk_send_answer (run.worker, TL_SAVED, 1, true);
    peer_wait (run.worker, TL_FORWARD);
    return run;
}

static void
s_forwarded (void)
{
    memset (s_nan, 0xff, sizeof s_nan);
    for (size_t i = 0; i < sizeof s_answers / sizeof *s_answers; i++) {
        trunk_run_t run = s_begin_scoring ();
        uint64_t rows = run.worker->tensor.rows, request = run.worker->of_step;
        s_send_pieces (run.worker, &s_answers[i], request + 7, rows,
                       "site-0"); //  of no request: ignored
        s_send_pieces (run.worker, &s_answers[i], request, rows, "site-0");
        peer_wait (run.worker, TL_BYE);
        peer_drop (&run.worker);
        int code = part_wait (run.site);
        if (code != s_answers[i].code || !strstr (part_err (run.site), s_answers[i].words))
            stage_fail (run.stage, "case %zu: expected code %d with \"%s\", got code %d", i,
                        s_answers[i].code, s_answers[i].words, code);
        stage_check (run.stage, part_wait (run.broker) == 0, "code 0 of the broker");
        stage_end (&run.stage);
    }
}

//  The same to a reader, while its site is in a step.
static void
s_reader (void)
{
    trunk_run_t run = trunk_begin (1, TRUNK_LONG, TRUNK_TUNE);
    char *path = s_short_text (run.stage);
    memset (s_nan, 0xff, sizeof s_nan);
    trunk_start (&run, NULL);
    uint64_t rows = trunk_wait_rows (run.worker, TL_ACTIVATION), step = run.worker->of_step;
    for (size_t i = 0; i < sizeof s_answers / sizeof *s_answers; i++) {
        part_t *reader = stage_verb (run.stage, "eval", "--live", "--base", "--site", "site-0",
                                     "--data", path, NULL);
        uint64_t due = trunk_wait_rows (run.worker, TL_FORWARD);
        uint64_t request = run.worker->of_step;
        s_send_pieces (run.worker, &s_answers[i], request + 7, due, run.worker->sender);
        s_send_pieces (run.worker, &s_answers[i], request, due, run.worker->sender);
        int code = part_wait (reader);
        if (code != s_answers[i].code || !strstr (part_err (reader), s_answers[i].words))
            stage_fail (run.stage, "case %zu: expected code %d with \"%s\", got code %d", i,
                        s_answers[i].code, s_answers[i].words, code);
    }
    trunk_go_on (run.worker, step, rows, "site-0");
    trunk_expect_step (&run, step);
    trunk_end (&run);
    free (path);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"step", s_rows}, {"forwarded", s_forwarded}, {"reader", s_reader}, {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
