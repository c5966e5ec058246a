#include "board.h"

#include "clock.h"
#include "memory.h"
#include "ui/json.h"
#include "ui/progress.h"
#include "ui/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { REDRAW_MS = 100, LOG_MS = 10000 };

//  A step of one client, kept because the run may go back behind it.
typedef struct {
    uint64_t step, round;
    uint64_t
        own; //  steps of the run that the client has made with it, those before this process too
    uint64_t labels;
    double loss;
} tl_past_t;

//  One client, as far as it told. Steps that the run went back behind don't count; their time and bytes were spent all the
//  same. What a resumed run did before this process is known as a number of steps only.
typedef struct {
    const char *name;
    tl_past_t *past; //  [steps] of room
    size_t room;
    uint64_t steps;          //  committed in this process
    uint64_t before;         //  of its own steps, those before the first it told of
    uint64_t labels;         //  label tokens trained on
    double first_loss, loss; //  of its first and latest step
    double rate;             //  label tokens a second, waiting included, smoothed
    int64_t at;              //  its latest step was over; monotonic ms
    double seconds;          //  sum of its steps
    uint64_t bytes;          //  on its wire, both ways, in training
    double nll;              //  of its held-out text, summed
    uint64_t held_out;       //  label tokens of it; 0: not scored
} tl_line_t;

struct tl_board {
    const tl_topology_t *topology;
    tl_format_t format;
    tl_line_t *lines;                //  [client_count]
    bool terminal;                   //  stderr is one
    size_t drawn;                    //  lines that stand on the terminal
    bool settled;                    //  training is over: its lines stay as they are
    int64_t began, last;             //  monotonic ms
    double up_s;                     //  until the first finished step, 0: none yet
    double trained_s;                //  until the latest finished step
    uint64_t closed;                 //  trunk steps
    uint64_t rounds;                 //  join: window: of the run that are over
    uint64_t resumed, resumed_round; //  where this process's share of the run begins
    uint64_t first_round;            //  of the first step that was told
    json_t *memory;                  //  {part: {planned, peak}}
};

tl_board_t *
tl_board_new (const tl_topology_t *topology, tl_format_t format)
{
    tl_board_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->format = format;
    self->lines = tl_alloc (topology->client_count * sizeof *self->lines);
    for (size_t i = 0; i < topology->client_count; i++)
        self->lines[i].name = topology->clients[i].name;
    self->terminal = isatty (STDERR_FILENO);
    self->began = tl_clock_ms ();
    self->memory = json_object ();
    return self;
}

void
tl_board_destroy (tl_board_t **self_p)
{
    tl_board_t *self = *self_p;
    if (!self)
        return;
    json_decref (self->memory);
    for (size_t i = 0; i < self->topology->client_count; i++)
        free (self->lines[i].past);
    free (self->lines);
    free (self);
    *self_p = NULL;
}

static double
s_real (const json_t *event, const char *key)
{
    return json_number_value (json_object_get (event, key));
}

static uint64_t
s_count (const json_t *event, const char *key)
{
    json_int_t value = json_integer_value (json_object_get (event, key));
    return value > 0 ? (uint64_t)value : 0;
}

static double
s_elapsed (const tl_board_t *self)
{
    return (double)(tl_clock_ms () - self->began) / 1000;
}

static double
s_perplexity (const tl_line_t *line)
{
    return line->held_out ? exp (line->nll / (double)line->held_out) : NAN;
}

//  Its own steps in the run so far.
static uint64_t
s_own (const tl_line_t *line)
{
    return line->steps ? line->past[line->steps - 1].own : line->before;
}

//  A client that has told of no step since the run was resumed: what it made before is not known.
static bool
s_is_unknown (const tl_board_t *self, const tl_line_t *line)
{
    return self->resumed && !line->room;
}

//  Rounds of the run that are over, as far as that client knows. With join: window a client isn't in every step, and the
//  run is over when the steps are.
static uint64_t
s_rounds (const tl_board_t *self, const tl_line_t *line)
{
    if (self->topology->schedule.window)
        return self->rounds;
    return line->steps ? line->past[line->steps - 1].round + 1 : self->resumed_round;
}

static uint64_t
s_most_rounds (const tl_board_t *self)
{
    uint64_t most = 0;
    for (size_t i = 0; i < self->topology->client_count; i++) {
        uint64_t rounds = s_rounds (self, &self->lines[i]);
        most = rounds > most ? rounds : most;
    }
    return most;
}

//  --- the screen -------------------------------------------------------------------------------

static void
s_erase (tl_board_t *self)
{
    for (; self->drawn; self->drawn--)
        fputs ("\033[A\033[2K", stderr);
}

//  What a client is at, after its name: training with the time left, or its score.
static void
s_tell (const tl_board_t *self, const tl_line_t *line, char *text, size_t size)
{
    uint64_t all = tl_topology_rounds (self->topology);
    bool window = self->topology->schedule.window;
    uint64_t at = s_rounds (self, line);
    const tl_client_spec_t *client = &self->topology->clients[line - self->lines];
    uint64_t own = client->steps && client->steps < all && !window ? client->steps : all;
    //  The time left is the run's, whoever was away for a while.
    uint64_t most = s_most_rounds (self), since = window ? self->resumed_round : self->first_round;
    char loss[16] = "     -", end[40] = "", its[32] = "";
    if (window)
        snprintf (its, sizeof its, " (%llu its)", (unsigned long long)s_own (line));
    if (line->steps)
        snprintf (loss, sizeof loss, "%6.3f", line->loss);
    if (line->held_out)
        snprintf (end, sizeof end, "held-out perplexity %.2f", s_perplexity (line));
    else if (most > since + 1 && at < own) {
        double each = (s_elapsed (self) - self->up_s) / (double)(most - since - 1);
        tl_duration (end, each * (double)(all - most));
        strcat (end, " left");
    } else if (at >= own)
        snprintf (end, sizeof end, "%s", most == all && client->eval ? "scoring" : "done");
    snprintf (text, size, "%-12s step %*llu/%llu%s  loss %s  %5.0f tokens/s  %7.2f MB%s%s",
              line->name, (int)snprintf (NULL, 0, "%llu", (unsigned long long)all),
              (unsigned long long)at, (unsigned long long)own, its, loss, line->rate,
              (double)line->bytes / 1e6, *end ? "  " : "", end);
}

//  Columns of the terminal: a line that is broken could not be taken back.
static size_t
s_columns (void)
{
    struct winsize size;
    return ioctl (STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1U : 79;
}

static void
s_draw (tl_board_t *self)
{
    int64_t now = tl_clock_ms ();
    int64_t pause = self->terminal ? REDRAW_MS : LOG_MS;
    if (self->settled || (self->last && now - self->last < pause))
        return;
    self->last = now;
    s_erase (self);
    for (size_t i = 0; i < self->topology->client_count; i++) {
        char text[256];
        s_tell (self, &self->lines[i], text, sizeof text);
        if (self->terminal && strlen (text) > s_columns ())
            text[s_columns ()] = 0;
        fprintf (stderr, "%s\n", text);
        self->drawn += self->terminal;
    }
}

bool
tl_board_made (const tl_board_t *self)
{
    bool scored = false;
    for (size_t i = 0; i < self->topology->client_count; i++)
        scored |= self->lines[i].held_out > 0;
    return self->closed && (self->closed != self->resumed || scored);
}

//  Draws for the last time; others may then write below.
static void
s_settle (tl_board_t *self)
{
    self->last = 0;
    s_draw (self);
    self->drawn = 0;
    self->settled = true;
}

void
tl_board_line (tl_board_t *self, const char *text)
{
    s_erase (self);
    fprintf (stderr, "%s\n", text);
    if (self->terminal && self->last) {
        self->last = 0;
        s_draw (self);
    }
}

//  --- events -----------------------------------------------------------------------------------

//  The client's steps from that one on are not, or not any more, part of the run.
static void
s_go_back (tl_line_t *line, uint64_t step)
{
    while (line->steps && line->past[line->steps - 1].step >= step)
        line->labels -= line->past[--line->steps].labels;
    line->loss = line->steps ? line->past[line->steps - 1].loss : 0;
}

static void
s_all_go_back (tl_board_t *self, uint64_t step)
{
    for (size_t i = 0; i < self->topology->client_count; i++)
        s_go_back (&self->lines[i], step);
    self->closed = self->closed < step ? self->closed : step;
}

//  A step that comes again replaces what was told of it before: parts' pipes are not in step with each other.
static void
s_keep (tl_line_t *line, const json_t *event)
{
    uint64_t step = s_count (event, "step"), own = s_count (event, "own");
    s_go_back (line, step);
    //  A synthetic client keeps nothing, and doesn't know how many it has made.
    own = own ? own : s_own (line) + 1;
    if (line->room == 0)
        line->before = own - 1;
    if (line->steps == line->room) {
        line->room = 2 * line->room + 64;
        tl_past_t *wider = tl_alloc (line->room * sizeof *wider);
        if (line->steps)
            memcpy (wider, line->past, line->steps * sizeof *wider);
        free (line->past);
        line->past = wider;
    }
    line->loss = s_real (event, "loss");
    line->past[line->steps++] = (tl_past_t){.step = step,
                                            .round = s_count (event, "round"),
                                            .own = own,
                                            .labels = s_count (event, "labels"),
                                            .loss = line->loss};
    line->labels += s_count (event, "labels");
    if (line->steps == 1)
        line->first_loss = line->loss;
}

static void
s_on_step (tl_board_t *self, tl_line_t *line, const json_t *event)
{
    //  Where clients take turns, what counts is the time from one of its steps to the next.
    int64_t now = tl_clock_ms ();
    double seconds = s_real (event, "seconds"), labels = (double)s_count (event, "labels");
    double since = line->at ? (double)(now - line->at) / 1000 : seconds;
    double rate = since > 0 ? labels / since : 0;
    line->at = now;
    self->trained_s = s_elapsed (self);
    if (self->up_s == 0) {
        self->up_s = self->trained_s;
        self->first_round = s_count (event, "round");
    }
    s_keep (line, event);
    line->rate = line->rate > 0 ? 0.8 * line->rate + 0.2 * rate : rate;
    line->seconds += seconds;
    line->bytes += s_count (event, "bytes");
    s_draw (self);
}

static void
s_on_memory (tl_board_t *self, const char *part, const json_t *event)
{
    json_object_set_new (self->memory, part,
                         json_pack ("{sIsI}", "planned", (json_int_t)s_count (event, "planned"),
                                    "peak", (json_int_t)s_count (event, "peak")));
}

void
tl_board_event (tl_board_t *self, const char *part, const json_t *event)
{
    const char *name = json_string_value (json_object_get (event, "event"));
    //  A load speaks for many clients, and says which.
    const char *client = strncmp (part, "client/", 7) == 0 ? part + 7
                         : strncmp (part, "load/", 5) == 0
                             ? json_string_value (json_object_get (event, "name"))
                             : NULL;
    int index = client ? tl_topology_client (self->topology, client) : -1;
    if (self->format == TL_FORMAT_JSONL) {
        json_t *copy = json_copy ((json_t *)event);
        json_object_set_new (copy, "part", json_string (part));
        tl_json_print (copy, false);
        json_decref (copy);
    }
    if (strcmp (name, "step") == 0 && index >= 0)
        s_on_step (self, &self->lines[index], event);
    else if (strcmp (name, "scored") == 0 && index >= 0) {
        self->lines[index].nll = s_real (event, "nll");
        self->lines[index].held_out = s_count (event, "labels");
        s_draw (self);
    } else if (strcmp (name, "closed") == 0) {
        self->closed = s_count (event, "step") + 1;
        self->rounds = s_count (event, "round") + 1;
    } else if (strcmp (name, "resumed") == 0 && self->closed == self->resumed) {
        self->resumed = self->closed = s_count (event, "step");
        self->rounds = self->resumed_round = s_count (event, "round");
        //  Until a client tells more
        for (size_t i = 0; i < self->topology->client_count; i++)
            if (!self->lines[i].room && !self->topology->schedule.window)
                self->lines[i].before = self->resumed_round;
    } else if (strcmp (name, "restore") == 0 && json_is_true (json_object_get (event, "all")))
        s_all_go_back (self, s_count (event, "step"));
    else if (strcmp (name, "restored") == 0 && index >= 0)
        s_go_back (&self->lines[index], s_count (event, "step"));
    else if (strcmp (name, "done") == 0)
        s_all_go_back (self, s_count (event, "steps"));
    else if (strcmp (name, "memory") == 0)
        s_on_memory (self, part, event);
    else if (strcmp (name, "serving") == 0) {
        if (tl_board_made (self))
            s_settle (self);
        tl_board_line (self, "trained; serving eval and generate until `trunkline down`");
    }
}

//  --- the result -------------------------------------------------------------------------------

//  A client that has held-out text was not scored: it died, or the run ended before.
static bool
s_is_unscored (const tl_board_t *self, size_t client)
{
    return self->topology->clients[client].eval && !self->lines[client].held_out;
}

//  Sums over all clients, losses a mean over label tokens: of everybody's first and latest step, as `train` tells it of a
//  step of all. Held-out loss is left out where a client's is missing: it would be the others'.
static tl_line_t
s_all (const tl_board_t *self)
{
    tl_line_t all = {.name = "all"};
    uint64_t first = 0, latest = 0; //  label tokens of these steps
    bool unscored = false;
    for (size_t i = 0; i < self->topology->client_count; i++) {
        const tl_line_t *line = &self->lines[i];
        all.labels += line->labels;
        all.bytes += line->bytes;
        all.nll += line->nll;
        all.held_out += line->held_out;
        all.steps += line->steps;
        unscored |= s_is_unscored (self, i);
        if (line->steps) {
            uint64_t begin = line->past[0].labels, end = line->past[line->steps - 1].labels;
            all.first_loss += line->first_loss * (double)begin;
            all.loss += line->loss * (double)end;
            first += begin;
            latest += end;
        }
    }
    all.first_loss /= first ? (double)first : 1;
    all.loss /= latest ? (double)latest : 1;
    if (unscored)
        all.nll = 0, all.held_out = 0;
    return all;
}

static json_t *
s_line_json (const tl_line_t *line, uint64_t steps)
{
    json_t *json =
        json_pack ("{sssIsIsfsfsIsfsfsI}", "name", line->name, "steps", (json_int_t)steps, "labels",
                   (json_int_t)line->labels, "first_loss", line->first_loss, "last_loss",
                   line->loss, "bytes", (json_int_t)line->bytes, "seconds", line->seconds, "nll",
                   line->nll, "held_out_labels", (json_int_t)line->held_out);
    if (line->held_out)
        json_object_set_new (json, "perplexity", json_real (s_perplexity (line)));
    return json;
}

json_t *
tl_board_summary (const tl_board_t *self)
{
    tl_line_t all = s_all (self);
    json_t *summary = s_line_json (&all, s_most_rounds (self));
    json_object_set_new (summary, "name", json_string (self->topology->name));
    json_object_set_new (summary, "mode",
                         json_string (tl_mode_name (self->topology->schedule.mode)));
    json_object_set_new (summary, "seconds", json_real (s_elapsed (self)));
    json_object_set_new (summary, "first_step_s", json_real (self->up_s));
    json_object_set_new (summary, "trained_s", json_real (self->trained_s));
    json_object_set_new (summary, "trunk_steps", json_integer ((json_int_t)self->closed));
    //  Labels, losses, bytes and seconds are from there on: what was before is in run.db
    if (self->resumed) {
        json_object_set_new (summary, "resumed_step", json_integer ((json_int_t)self->resumed));
        json_object_set_new (summary, "resumed_round",
                             json_integer ((json_int_t)self->resumed_round));
    }
    json_t *clients = json_array ();
    for (size_t i = 0; i < self->topology->client_count; i++) {
        const tl_line_t *line = &self->lines[i];
        json_t *json = s_line_json (line, s_own (line));
        if (s_is_unknown (self, line))
            json_object_del (json, "steps");
        json_array_append_new (clients, json);
    }
    json_object_set_new (summary, "clients", clients);
    json_object_set (summary, "memory", self->memory);
    return summary;
}

static void
s_row (tl_table_t *table, const tl_line_t *line, const uint64_t *steps)
{
    tl_table_text (table, line->name);
    if (steps)
        tl_table_count (table, *steps);
    else
        tl_table_text (table, NULL);
    tl_table_count (table, line->labels);
    tl_table_real (table, line->steps ? line->first_loss : NAN);
    tl_table_real (table, line->steps ? line->loss : NAN);
    tl_table_real (table, s_perplexity (line));
    tl_table_real (table, (double)line->bytes / 1e6);
}

void
tl_board_end (tl_board_t *self)
{
    static const tl_column_t columns[] = {
        {"client", "client", 0},           {"steps", "steps", 0},
        {"labels", "label tokens", 0},     {"first_loss", "first loss", 4},
        {"last_loss", "last loss", 4},     {"perplexity", "held-out perplexity", 2},
        {"megabytes", "MB on the wire", 2}};
    if (tl_board_made (self))
        s_settle (self);
    if (self->format == TL_FORMAT_JSON) {
        json_t *summary = tl_board_summary (self);
        tl_json_print (summary, true);
        json_decref (summary);
    }
    if (self->format != TL_FORMAT_TEXT || !tl_board_made (self))
        return;
    tl_table_t *table = tl_table_new ("clients", columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < self->topology->client_count; i++) {
        const tl_line_t *line = &self->lines[i];
        uint64_t own = s_own (line);
        s_row (table, line, s_is_unknown (self, line) ? NULL : &own);
    }
    tl_line_t all = s_all (self);
    uint64_t rounds = s_most_rounds (self);
    if (self->topology->client_count > 1)
        s_row (table, &all, &rounds);
    tl_table_print (table, TL_FORMAT_TEXT);
    tl_table_destroy (&table);
    if (self->resumed)
        printf ("label tokens, first loss and MB on the wire: from step %llu on, where the run was "
                "resumed\n",
                (unsigned long long)self->resumed_round);
}
