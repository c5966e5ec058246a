/*  What a person is told of a run, from the events of its parts.  */

#include "unit/cmocka_all.h"

#include "ui/board.h"

#include <math.h>
#include <string.h>

enum { STEPS = 10 };

//  North and south, who both have held-out text.
static tl_topology_t *s_topology;

static int
s_begin (void **state)
{
    static const char *const overrides[] = {"train.steps=10", "clients.0.eval=n.jsonl",
                                            "clients.1.eval=s.jsonl"};
    tl_error_t err;
    s_topology = tl_topology_read ("topology/two-machines.yaml", overrides, 3, &err);
    if (!s_topology)
        print_error ("%s\n", err.text);
    return s_topology ? 0 : -1;
}

static int
s_end (void **state)
{
    tl_topology_destroy (&s_topology);
    return 0;
}

static void
s_tell (tl_board_t *board, const char *part, json_t *event)
{
    assert_non_null (event);
    tl_board_event (board, part, event);
    json_decref (event);
}

//  own: how many steps of its own that makes.
static void
s_step_of (tl_board_t *board, const char *part, int step, int own, double loss, int labels)
{
    s_tell (board, part,
            json_pack ("{sssisisisfsisfsi}", "event", "step", "step", step, "round", step, "own",
                       own, "loss", loss, "labels", labels, "seconds", 0.1, "bytes", 1000));
}

static void
s_step (tl_board_t *board, const char *part, int step, int own, double loss)
{
    s_step_of (board, part, step, own, loss, 100);
}

static void
s_score (tl_board_t *board, const char *part, double nll)
{
    s_tell (board, part, json_pack ("{sssfsi}", "event", "scored", "nll", nll, "labels", 50));
}

static json_int_t
s_steps (const json_t *of)
{
    return json_integer_value (json_object_get (of, "steps"));
}

static const json_t *
s_client (const json_t *summary, size_t index)
{
    return json_array_get (json_object_get (summary, "clients"), index);
}

//  Steps are the run's; what is told for the first time counts from there.
static void
test_a_resumed_run_counts_from_its_beginning (void **state)
{
    tl_board_t *board = tl_board_new (s_topology, TL_FORMAT_TEXT);
    s_tell (board, "broker", json_pack ("{sssisi}", "event", "resumed", "step", 6, "round", 6));
    for (int i = 6; i < STEPS; i++)
        s_step (board, "client/north", i, i + 1, 2);
    json_t *summary = tl_board_summary (board);
    assert_int_equal (s_steps (summary), STEPS);
    assert_int_equal (s_steps (s_client (summary, 0)), STEPS);
    assert_int_equal (json_integer_value (json_object_get (s_client (summary, 0), "labels")), 400);
    assert_int_equal (json_integer_value (json_object_get (summary, "resumed_round")), 6);
    //  Nobody knows what south had made
    assert_null (json_object_get (s_client (summary, 1), "steps"));
    json_decref (summary);
    tl_board_destroy (&board);
}

//  Who was away for three rounds has made three steps fewer; the run has not. What it went back behind doesn't count.
static void
test_a_client_that_was_away (void **state)
{
    tl_board_t *board = tl_board_new (s_topology, TL_FORMAT_TEXT);
    for (int i = 0; i < 9; i++)
        s_step (board, "client/north", i, i + 1, 2);
    for (int i = 0; i < 9; i++)
        if (i < 3 || i >= 6)
            s_step (board, "client/south", i, i < 3 ? i + 1 : i - 2, 4);
    json_t *summary = tl_board_summary (board);
    assert_int_equal (s_steps (summary), 9);
    assert_int_equal (s_steps (s_client (summary, 0)), 9);
    assert_int_equal (s_steps (s_client (summary, 1)), 6);
    json_decref (summary);
    s_tell (board, "broker", json_pack ("{sssisb}", "event", "restore", "step", 7, "all", 1));
    summary = tl_board_summary (board);
    assert_int_equal (s_steps (summary), 7);
    assert_int_equal (s_steps (s_client (summary, 1)), 4);
    json_decref (summary);
    tl_board_destroy (&board);
}

//  The held-out figure of all is that of all, or there is none.
static void
test_all_without_a_client_that_died (void **state)
{
    tl_board_t *board = tl_board_new (s_topology, TL_FORMAT_TEXT);
    s_step (board, "client/north", 0, 1, 2);
    s_score (board, "client/north", 100);
    json_t *summary = tl_board_summary (board);
    assert_null (json_object_get (summary, "perplexity"));
    assert_float_equal (json_number_value (json_object_get (summary, "last_loss")), 2, 1e-9);
    assert_non_null (json_object_get (s_client (summary, 0), "perplexity"));
    json_decref (summary);
    s_score (board, "client/south", 200);
    summary = tl_board_summary (board);
    assert_float_equal (json_number_value (json_object_get (summary, "perplexity")), exp (3), 1e-9);
    json_decref (summary);
    tl_board_destroy (&board);
}

//  A loss of all is that of all label tokens, whoever has how many.
static void
test_losses_of_all_are_weighted_by_label_tokens (void **state)
{
    tl_board_t *board = tl_board_new (s_topology, TL_FORMAT_TEXT);
    s_step_of (board, "client/north", 0, 1, 4, 300);
    s_step_of (board, "client/south", 0, 1, 8, 100);
    s_step_of (board, "client/north", 1, 2, 2, 100);
    s_step_of (board, "client/south", 1, 2, 7, 400);
    json_t *summary = tl_board_summary (board);
    assert_float_equal (json_number_value (json_object_get (summary, "first_loss")), 5, 1e-9);
    assert_float_equal (json_number_value (json_object_get (summary, "last_loss")), 6, 1e-9);
    json_decref (summary);
    tl_board_destroy (&board);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_a_resumed_run_counts_from_its_beginning),
        cmocka_unit_test (test_a_client_that_was_away),
        cmocka_unit_test (test_all_without_a_client_that_died),
        cmocka_unit_test (test_losses_of_all_are_weighted_by_label_tokens)};
    return cmocka_run_group_tests (tests, s_begin, s_end);
}
