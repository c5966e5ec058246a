/*  Runs with faults that a seed chooses: which actor, at the how-manieth message of which type, and what: kill -9 (and the
    restart that follows), SIGSTOP, a delay, a message twice, or held back until others were received. Seeds take the modes in
    turn. Each run ends well within a minute, and all it told is bit for bit the undisturbed run's up to the first step at which
    a member was away, whose loss is in the log, or from which the broker decided otherwise: a worker was away, or auto had
    measured other times; but not with a window, where no two runs are alike. All that it told, to the end, is also bit for bit
    what comes out when it is computed again without sockets and faults (replay.h), with those members in those steps; and
    whoever was missing in one had been away. Whatever happened, a client that never was away has learnt from every round's
    text, but with a window, and run.db accounts for every round. A seed repeats.

        chaos_seeds [FIRST-LAST]      TRUNKLINE names trunkline_faults                              */

#include "chaos/replay.h"
#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "random.h"
#include "stats/rundb.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 40, SITES = 3, WORKERS = 3, MOST_STEPS = ROUNDS * SITES, FAULTS = 3 };
enum { MOST_PARTS = WORKERS + SITES };
//  WIDE is fanout with a third site and a third worker, in place of it every fourth time.
enum { BATCH, SERIAL, FANOUT, AVERAGE, AUTO, SYNC, FEDAVG, WINDOW, MODES, WIDE = MODES, PLANS };

//  A mode, and what its undisturbed run came to.
typedef struct {
    const char *name, *settings;
    size_t sites, workers;
    bool aggregator;
    bool known;                           //  the undisturbed run was made
    int64_t total;                        //  its steps
    case_step_t steps[SITES][MOST_STEPS]; //  by number of the step
    uint64_t labels[SITES][ROUNDS];       //  0: the client was not in that round
    int64_t decided[MOST_STEPS + 1];      //  s_decision, by number of the step; 0: none there
    char *adapters[MOST_PARTS];           //  as s_part names them
    size_t sizes[MOST_PARTS];
} plan_t;

#define CUT "split: {front: 1, tail: 1}\n"
#define SHARED "{every: 8, clients: average, server: {optimizer: adam}}\n"
#define PLAN(text, what, count, merges)                                                            \
    {                                                                                              \
        .name = text, .settings = what, .sites = 2, .workers = count, .aggregator = merges         \
    }
static plan_t s_plans[PLANS] = {
    [BATCH] = PLAN ("batch", CUT "schedule: {mode: batch}\n", 1, false),
    [SERIAL] = PLAN ("serial", CUT "schedule: {mode: serial}\n", 1, false),
    [FANOUT] = PLAN ("fanout", CUT "schedule: {mode: fanout}\nfederate: {every: 8}\n", 2, true),
    [AVERAGE] =
        PLAN ("fanout, average", CUT "schedule: {mode: fanout}\nfederate: " SHARED, 2, true),
    [AUTO] = PLAN ("auto", CUT "schedule: {mode: auto}\nfederate: {every: 5}\n", 2, true),
    [SYNC] = PLAN ("sync", CUT "schedule: {mode: batch}\nfederate: {clients: sync}\n", 1, true),
    [FEDAVG] = PLAN ("FedAvg", "split: none\nschedule: {mode: batch}\nfederate: " SHARED, 1, true),
    [WINDOW] = PLAN ("window", CUT "schedule: {mode: batch, join: window}\n", 2, false),
    [WIDE] = {.name = "fanout, three of each",
              .settings = CUT "schedule: {mode: fanout}\nfederate: {every: 8}\n",
              .sites = 3,
              .workers = 3,
              .aggregator = true}};

//  Whose adapters are compared. Which worker has the trunk in the end is auto's to choose; FedAvg has none.
static const char *
s_part (const plan_t *plan, size_t i)
{
    static const char *const sites[SITES] = {"site-0", "site-1", "site-2"};
    static const char *const trunks[WORKERS] = {"trunk", "trunk-2", "trunk-3"};
    bool any = plan != &s_plans[AUTO] && plan != &s_plans[FEDAVG] && plan != &s_plans[WINDOW];
    return i < plan->sites                          ? sites[i]
           : any && i < plan->sites + plan->workers ? trunks[i - plan->sites]
                                                    : NULL;
}

static case_spec_t
s_case (const plan_t *plan)
{
    static char settings[640];
    snprintf (settings, sizeof settings,
              "tune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 4, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 1.0}\nwire: {dtype: fp32}\nliveness: {ping_ms: 300, expire_ms: 2500}\n%s",
              ROUNDS, plan->settings);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = plan->sites,
                         .workers = plan->workers,
                         .examples = 16,
                         .letters = {30, 20, 25},
                         .save_every = 5,
                         .settings = settings};
}

//  --- the undisturbed run ----------------------------------------------------------------------

static char *
s_adapter (const stage_t *stage, const char *part, size_t *size)
{
    char *directory = case_adapter (stage_case (stage), part);
    char *path = tl_format ("%s/adapter_model.safetensors", directory);
    tl_error_t err;
    char *data = tl_file_read (path, 1 << 26, size, &err);
    if (!data)
        stage_fail (stage, "%s", err.text);
    free (path);
    free (directory);
    return data;
}

static size_t
s_site (const json_t *event)
{
    const char *name = part_text (event, "name");
    return (size_t)(name[strlen (name) - 1] - '0');
}

static size_t
s_its_worker (const json_t *event)
{
    const char *name = part_text (event, "worker");
    return strcmp (name, "trunk") == 0 ? 0 : (size_t)(name[strlen (name) - 1] - '1');
}

static bool
s_of_broker (const json_t *event)
{
    return strcmp (part_text (event, "part"), "broker") == 0;
}

//  What was decided, as a number above 0.
static int64_t
s_decision (const json_t *event)
{
    return 1 + 8 * part_int (event, "groups") + part_int (event, "inside");
}

static int64_t
s_steps_done (const part_t *up)
{
    int64_t steps = -1;
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "done"))
            steps = part_int (part_at (up, i), "steps");
    return steps;
}

static void
s_take_step (const stage_t *stage, plan_t *plan, const json_t *it)
{
    int64_t step = part_int (it, "step"), round = part_int (it, "round");
    if (step < 0 || step >= MOST_STEPS || round < 0 || round >= ROUNDS)
        stage_fail (stage, "step %lld, round %lld is none of the run's", (long long)step,
                    (long long)round);
    case_step_t *to = &plan->steps[s_site (it)][step];
    to->loss = json_number_value (json_object_get (it, "loss"));
    to->seen = true;
    plan->labels[s_site (it)][round] = (uint64_t)part_int (it, "labels");
}

static void
s_undisturbed (plan_t *plan)
{
    case_spec_t spec = s_case (plan);
    stage_t *stage = stage_new (&spec);
    unsetenv ("TL_FAULTS");
    part_t *up = stage_up (stage, NULL);
    stage_check (stage, part_wait (up) == 0, "code 0 of the undisturbed run");
    stage_check (stage, replay_run (stage, up).missed == 0, "all sites in each step");
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (part_is (it, "step"))
            s_take_step (stage, plan, it);
        else if (part_is (it, "decision"))
            plan->decided[part_int (it, "step")] = s_decision (it);
    }
    plan->total = s_steps_done (up);
    for (size_t i = 0; s_part (plan, i); i++)
        plan->adapters[i] = s_adapter (stage, s_part (plan, i), &plan->sizes[i]);
    stage_end (&stage);
    plan->known = true;
}

//  --- what the seed chooses --------------------------------------------------------------------

typedef struct {
    uint64_t seed, drawn;
} draw_t;

static uint64_t
s_draw (draw_t *self, uint64_t limit)
{
    return tl_random_below (&(tl_stream_t){.seed = self->seed, .purpose = TL_DRAW_SAMPLE},
                            self->drawn++, limit);
}

//  Types that an actor receives, and how many of each it may count on in which mode (a fault beyond never comes; 0: none).
typedef struct {
    const char *type;
    uint8_t most[MODES];
} kind_t;

//                         batch serial fanout average auto sync FedAvg window
static const kind_t s_broker[] = {{"HELLO", {3, 3, 5, 5, 5, 4, 4, 5}},
                                  {"ATTACH", {3, 3, 10, 10, 10, 8, 8, 10}},
                                  {"ACTIVATION", {150, 150, 150, 150, 150, 150, 0, 150}},
                                  {"GRADIENT", {150, 150, 150, 150, 150, 150, 0, 150}},
                                  {"COMMIT", {78, 78, 78, 78, 78, 78, 78, 78}},
                                  {"HIDDEN", {150, 150, 150, 150, 150, 150, 0, 150}},
                                  {"GRAD_IN", {150, 150, 150, 150, 150, 150, 0, 150}},
                                  {"COMMITTED", {110, 150, 150, 150, 140, 110, 110, 110}},
                                  {"SAVED", {20, 20, 14, 14, 20, 25, 25, 25}},
                                  {"STATE", {8, 8, 0, 0, 5, 8, 8, 8}},
                                  {"PART", {0, 0, 9, 18, 5, 76, 9, 0}},
                                  {"OUTCOME", {0, 0, 4, 9, 2, 38, 4, 0}},
                                  {"MERGED", {0, 0, 4, 9, 2, 38, 4, 0}},
                                  {"RESTORED", {0, 0, 8, 16, 3, 0, 8, 0}},
                                  {"FINISHED", {2, 2, 2, 2, 2, 2, 2, 2}},
                                  {"CREDIT", {40, 40, 40, 40, 40, 40, 20, 40}},
                                  {"PING", {3, 3, 3, 3, 3, 3, 3, 3}}};
static const kind_t s_client[] = {
    {"WELCOME", {1, 1, 1, 1, 1, 1, 1, 1}},        {"ATTACHED", {2, 2, 2, 2, 2, 2, 2, 2}},
    {"PLAN", {40, 40, 40, 40, 40, 40, 39, 39}},   {"HIDDEN", {78, 78, 78, 78, 78, 78, 0, 78}},
    {"GRAD_IN", {78, 78, 78, 78, 78, 78, 0, 78}}, {"COMMITTED", {39, 39, 39, 39, 39, 39, 39, 39}},
    {"SAVE", {8, 8, 5, 5, 7, 8, 8, 8}},           {"GATHER", {0, 0, 0, 5, 0, 0, 5, 0}},
    {"MERGED", {0, 0, 0, 5, 0, 39, 5, 0}},        {"FINISH", {1, 1, 1, 1, 1, 1, 1, 1}},
    {"CREDIT", {10, 10, 10, 10, 10, 10, 5, 10}}};
static const kind_t s_worker[] = {{"WELCOME", {1, 1, 1, 1, 1, 1, 1, 1}},
                                  {"ATTACHED", {2, 2, 2, 2, 2, 2, 2, 2}},
                                  {"PLAN", {40, 79, 39, 39, 20, 39, 39, 40}},
                                  {"ACTIVATION", {150, 150, 78, 78, 40, 150, 0, 150}},
                                  {"GRADIENT", {150, 150, 78, 78, 40, 150, 0, 150}},
                                  {"COMMIT", {78, 78, 39, 39, 20, 78, 78, 78}},
                                  {"SAVE", {8, 8, 0, 0, 3, 8, 8, 8}},
                                  {"GATHER", {0, 0, 5, 5, 1, 0, 0, 0}},
                                  {"STATE", {0, 0, 4, 4, 1, 0, 0, 1}},
                                  {"RESTORE", {0, 0, 4, 4, 1, 0, 0, 1}},
                                  {"CREDIT", {20, 20, 20, 20, 20, 20, 10, 20}}};
static const kind_t s_aggregator[] = {
    {"WELCOME", {0, 0, 1, 1, 1, 1, 1, 1}}, {"ATTACHED", {0, 0, 2, 2, 2, 2, 2, 1}},
    {"MERGE", {0, 0, 8, 12, 2, 39, 5, 0}}, {"PART", {0, 0, 9, 18, 2, 78, 9, 0}},
    {"SAVE", {0, 0, 5, 5, 7, 8, 8, 0}},    {"CREDIT", {0, 0, 4, 8, 2, 20, 4, 0}}};

#define OF(list) list, sizeof list / sizeof *list
static const struct {
    const char *name;
    const kind_t *kinds;
    size_t count, workers; //  workers: in modes of at least so many
    bool aggregator;       //  only where there is one
} s_actors[] = {
    {"broker", OF (s_broker), 0, false},         {"worker/trunk", OF (s_worker), 0, false},
    {"worker/trunk-2", OF (s_worker), 2, false}, {"client/site-0", OF (s_client), 0, false},
    {"client/site-1", OF (s_client), 0, false},  {"aggregator", OF (s_aggregator), 0, true},
    {"worker/trunk-3", OF (s_worker), 3, false}, {"client/site-2", OF (s_client), 3, false}};
enum { ACTORS = sizeof s_actors / sizeof *s_actors, LATER = 2 }; //  only where there are three

//  What it does, in how many of a hundred, and its number: of ms, or of others' messages.
static const struct {
    uint64_t below;
    const char *name;
    uint64_t least, range;
} s_actions[] = {{42, "kill", 0, 1},       {56, "stop", 100, 1500},
                 {62, "stop", 3000, 1500}, //  long enough to be expelled for it
                 {70, "delay", 0, 700},    {80, "twice", 0, 1},
                 {100, "hold", 1, 12}};

//  One fault, as tests/chaos/fault.c reads it.
static void
s_fault (draw_t *draw, size_t mode, char *text, size_t size)
{
    const plan_t *plan = &s_plans[mode];
    size_t actor, kind, column = mode == WIDE ? FANOUT : mode;
    do
        actor = s_draw (draw, plan->sites > 2 ? ACTORS : ACTORS - LATER);
    while (s_actors[actor].workers > plan->workers ||
           (s_actors[actor].aggregator && !plan->aggregator));
    do
        kind = s_draw (draw, s_actors[actor].count);
    while (!s_actors[actor].kinds[kind].most[column]);
    const kind_t *its = &s_actors[actor].kinds[kind];
    uint64_t number = 1 + s_draw (draw, its->most[column]), percent = s_draw (draw, 100), i = 0;
    while (percent >= s_actions[i].below)
        i++;
    snprintf (text, size, "%s %s %llu %s %llu", s_actors[actor].name, its->type,
              (unsigned long long)number, s_actions[i].name,
              (unsigned long long)(s_actions[i].least + s_draw (draw, s_actions[i].range)));
}

//  --- what came of it --------------------------------------------------------------------------

//  What the broker told of who was away, and of what it decided.
typedef struct {
    bool away[SITES], ever[SITES];
    int64_t open[WORKERS];  //  the step that each worker may have open
    size_t workers, groups; //  there are; of the period
    int64_t first; //  before this step nobody was away and all was decided as without faults
    bool late;     //  somebody was away after the last step
    bool resumed;  //  what it told last: with what it goes on
} account_t;

static int64_t
s_least_open (const account_t *self)
{
    int64_t least = self->open[0];
    for (size_t i = 1; i < self->workers; i++)
        least = self->open[i] < least ? self->open[i] : least;
    return least;
}

static void
s_all_open (account_t *self, int64_t step)
{
    for (size_t i = 0; i < WORKERS; i++)
        self->open[i] = step;
}

static void
s_account (account_t *self, const plan_t *plan, const json_t *it)
{
    int64_t step = part_int (it, "step");
    bool peer = part_is (it, "peer") && strcmp (part_text (it, "role"), "client") == 0;
    if (peer) {
        bool left = strcmp (part_text (it, "state"), "left") == 0;
        self->away[s_site (it)] = left;
        self->ever[s_site (it)] |= left;
    } else if (part_is (it, "decision")) {
        self->groups = (size_t)part_int (it, "groups");
        s_all_open (self, step);
        if (s_decision (it) != plan->decided[step] && step < self->first)
            self->first = step;
    } else if (part_is (it, "closed") && self->groups > 1)
        self->open[s_its_worker (it)] = step + 1;
    else if (part_is (it, "closed"))
        s_all_open (self, step + 1);
    else if (part_is (it, "restore") || part_is (it, "resumed"))
        s_all_open (self, step);
    else if (part_is (it, "up") && !self->resumed)
        s_all_open (self, 0); //  a broker that has no run to go on with begins it anew
    self->resumed = part_is (it, "resumed");
    //  Until it is back, whatever opens is without it; what just closed was not
    for (size_t k = 0; k < SITES; k++)
        if (self->away[k] && s_least_open (self) < self->first)
            self->first = s_least_open (self);
    if (!part_is (it, "done") && s_least_open (self) >= plan->total)
        self->late |= self->away[0] || self->away[1] || self->away[2];
}

static account_t
s_accounts (const part_t *up, const plan_t *plan)
{
    //  With a window a step has whoever is ready, so no two runs are alike. Of three replicas it is the order that tells in
    //  the sum, and that is by measured speed
    account_t account = {.workers = plan->workers, .groups = 1, .first = plan->total};
    if (plan == &s_plans[WINDOW])
        account.first = 0;
    else if (plan == &s_plans[WIDE])
        account.first = 8;
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (s_of_broker (it))
            s_account (&account, plan, it);
        if (part_is (it, "done"))
            break;
    }
    return account;
}

//  Up to the first step that may differ, none does.
static void
s_check_steps (const stage_t *stage, const part_t *up, const plan_t *plan, int64_t first)
{
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        int64_t number = part_int (it, "step");
        if (!part_is (it, "step") || number >= first)
            continue;
        const case_step_t *step = &plan->steps[s_site (it)][number];
        double loss = json_number_value (json_object_get (it, "loss"));
        if (!step->seen || loss != step->loss)
            stage_fail (stage, "step %lld of site-%zu has loss %.17g, undisturbed %.17g",
                        (long long)number, s_site (it), loss, step->loss);
    }
}

//  Who never was away has learnt from each round's text.
static void
s_check_rounds (const stage_t *stage, const part_t *up, const plan_t *plan,
                const account_t *account)
{
    uint64_t labels[SITES][ROUNDS] = {{0}};
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        int64_t round = part_int (it, "round");
        if (part_is (it, "step") && round >= 0 && round < ROUNDS)
            labels[s_site (it)][round] = (uint64_t)part_int (it, "labels");
    }
    for (size_t k = 0; k < SITES; k++)
        for (size_t i = 0; i < ROUNDS && !account->ever[k]; i++)
            if (labels[k][i] != plan->labels[k][i])
                stage_fail (stage, "site-%zu learnt from %llu label tokens in round %zu, not %llu",
                            k, (unsigned long long)labels[k][i], i,
                            (unsigned long long)plan->labels[k][i]);
}

static void
s_check_adapters (const stage_t *stage, const plan_t *plan)
{
    for (size_t i = 0; s_part (plan, i); i++) {
        size_t size;
        char *data = s_adapter (stage, s_part (plan, i), &size);
        if (size != plan->sizes[i] || memcmp (data, plan->adapters[i], size) != 0)
            stage_fail (stage, "%s ends with another adapter than the undisturbed run's",
                        s_part (plan, i));
        free (data);
    }
}

//  run.db accounts for every step of every group once, for every round and every period.
static void
s_check_db (const stage_t *stage, int64_t steps)
{
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    tl_error_t err = {0};
    tl_rundb_t *db = tl_rundb_open (path, &err);
    json_t *rows =
        db ? tl_rundb_ask (
                 db,
                 "SELECT (SELECT max (step) + 1 FROM steps) AS top, (SELECT complete FROM run) AS "
                 "complete, count (*) AS groups, sum (n = top - bottom + 1) AS whole, (SELECT "
                 "count (DISTINCT round) FROM steps) AS rounds, (SELECT count (*) FROM periods) = "
                 "count (DISTINCT period) AS periods FROM (SELECT period, grp, count (*) AS n, min "
                 "(step) AS bottom, max (step) AS top FROM steps GROUP BY period, grp)",
                 &err)
           : NULL;
    const json_t *row = json_array_get (rows, 0);
    if (!row || part_int (row, "top") != steps || part_int (row, "complete") != 1 ||
        part_int (row, "whole") != part_int (row, "groups") || part_int (row, "periods") != 1 ||
        part_int (row, "rounds") != ROUNDS) {
        char *text = json_dumps (row, 0);
        stage_fail (stage,
                    "run.db says %s; expected %lld steps, all groups whole, %d rounds, all periods "
                    "and complete; %s",
                    text ? text : "nothing", (long long)steps, ROUNDS, err.text);
    }
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
}

//  How many of the faults came: one may be due at a message that never did.
static unsigned
s_came (const stage_t *stage, uint64_t faults)
{
    unsigned came = 0;
    for (uint64_t i = 0; i < faults; i++) {
        char *path =
            tl_format ("%s/fault-%llu", stage_case (stage)->directory, (unsigned long long)i);
        came += tl_exists (path);
        free (path);
    }
    return came;
}

//  Exit code of a seed's process: EQUAL or LESS, plus how many faults came. Whatever else is a failure.
enum { EQUAL = 64, LESS = 96 };

static size_t
s_mode (uint64_t seed)
{
    size_t mode = seed % MODES;
    return mode == FANOUT && seed / MODES % 4 == 1 ? WIDE : mode;
}

static int
s_run (uint64_t seed)
{
    draw_t draw = {.seed = seed};
    size_t mode = s_mode (seed);
    const plan_t *plan = &s_plans[mode];
    uint64_t faults = 1 + s_draw (&draw, FAULTS);
    char text[FAULTS * 128] = "";
    for (uint64_t i = 0; i < faults; i++) {
        size_t used = strlen (text);
        if (i)
            text[used++] = ';';
        s_fault (&draw, mode, text + used, sizeof text - used);
    }
    int64_t began = stage_ms ();
    fprintf (stderr, "seed %llu, %s: %s\n", (unsigned long long)seed, plan->name, text);
    case_spec_t spec = s_case (plan);
    stage_t *stage = stage_new (&spec);
    setenv ("TL_FAULTS", text, 1);
    setenv ("TL_FAULTS_DONE", stage_case (stage)->directory, 1);
    part_t *up = stage_up (stage, NULL);
    int code = part_wait (up);
    if (code)
        stage_fail (stage, "seed %llu ended with code %d", (unsigned long long)seed, code);
    account_t account = s_accounts (up, plan);
    int64_t steps = s_steps_done (up);
    if (account.first == plan->total ? steps != plan->total : steps > MOST_STEPS || steps < ROUNDS)
        stage_fail (stage, "seed %llu came to %lld steps, %lld without faults",
                    (unsigned long long)seed, (long long)steps, (long long)plan->total);
    s_check_steps (stage, up, plan, account.first);
    if (plan != &s_plans[WINDOW])
        s_check_rounds (stage, up, plan, &account);
    s_check_db (stage, steps);
    bool equal = account.first == plan->total && !account.late;
    if (equal)
        s_check_adapters (stage, plan);
    replay_t replay = replay_run (stage, up);
    unsigned came = s_came (stage, faults);
    stage_end (&stage);
    fprintf (stderr, "seed %llu: %s%lld of %lld steps equal, %u faults, %.1f s\n",
             (unsigned long long)seed, equal ? "all adapters and " : "", (long long)account.first,
             (long long)plan->total, came, (double)(stage_ms () - began) / 1000);
    fprintf (stderr, "seed %llu: %zu steps with %zu losses computed again, %zu without a site\n",
             (unsigned long long)seed, replay.steps, replay.losses, replay.missed);
    return (int)((equal ? EQUAL : LESS) + came);
}

int
main (int argc, char **argv)
{
    unsigned long long from = 1, to = 10;
    if (argc > 1 && sscanf (argv[1], "%llu-%llu", &from, &to) < 1) {
        fprintf (stderr, "expected seeds like 1-200\n");
        return 4;
    }
    if (argc > 1 && !strchr (argv[1], '-'))
        to = from;
    int64_t began = stage_ms ();
    unsigned equal = 0, less = 0, failed = 0, came = 0;
    for (unsigned long long seed = from; seed <= to; seed++) {
        if (!s_plans[s_mode (seed)].known)
            s_undisturbed (&s_plans[s_mode (seed)]);
        //  A failure ends its own process, not the others
        fflush (NULL);
        pid_t child = fork ();
        if (child == 0)
            exit (s_run (seed));
        int status = 0;
        waitpid (child, &status, 0);
        int code = WIFEXITED (status) ? WEXITSTATUS (status) : 1;
        if (code < EQUAL) {
            failed++;
            fprintf (stderr, "seed %llu FAILED\n", seed);
            continue;
        }
        equal += code < LESS;
        less += code >= LESS;
        came += (unsigned)(code < LESS ? code - EQUAL : code - LESS);
    }
    printf ("{\"chaos_runs\": %llu, \"chaos_equal\": %u, \"chaos_logged_losses\": %u, "
            "\"chaos_failed\": %u, \"chaos_faults\": %u, \"chaos_s\": %.1f}\n",
            to - from + 1, equal, less, failed, came, (double)(stage_ms () - began) / 1000);
    for (size_t i = 0; i < PLANS; i++)
        for (size_t k = 0; k < MOST_PARTS; k++)
            free (s_plans[i].adapters[k]);
    return failed ? 1 : 0;
}
