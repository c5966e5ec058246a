#include "assert.h"
#include "assign.h"
#include "choose_internal.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORRECTION_GAIN 0.7 //  of a new measurement against what was believed
#define ALL_ROWS 0.9      //  of those arranged: with fewer some clients were done before the period
#define IN_TRANSITION 0.1 //  a prediction that moved so far within a period: the load changed in it

enum { MANY_DEALS = 1 << 16 }; //  clients * workers

//  Rows per second by the models alone.
typedef struct {
    double round_us;
    double rows_s;
} tl_guess_t;

tl_choose_t *
tl_choose_new (const tl_choose_config_t *config)
{
    tl_assert (config->workers > 0 && config->clients > 0 && config->micros > 0);
    tl_choose_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->costs = tl_costs_new (config->workers, config->clients);
    self->most_groups = config->workers < config->clients ? config->workers : config->clients;
    self->worker = tl_alloc (self->most_groups * sizeof *self->worker);
    self->group = tl_alloc (config->clients * sizeof *self->group);
    self->used = tl_alloc (config->workers * sizeof *self->used);
    self->clients = tl_alloc (config->clients * sizeof *self->clients);
    self->workers = tl_alloc (config->workers * sizeof *self->workers);
    for (int i = 0; i < 2; i++)
        self->corrections[i] = tl_alloc ((self->most_groups + 1) * sizeof (double));
    self->holder = TL_CHOOSE_NOBODY;
    self->rounds = 1;
    return self;
}

void
tl_choose_destroy (tl_choose_t **self_p)
{
    tl_choose_t *self = *self_p;
    if (!self)
        return;
    tl_costs_destroy (&self->costs);
    free (self->worker);
    free (self->group);
    free (self->used);
    free (self->clients);
    free (self->workers);
    free (self->corrections[0]);
    free (self->corrections[1]);
    free (self);
    *self_p = NULL;
}

tl_costs_t *
tl_choose_costs (tl_choose_t *self)
{
    return self->costs;
}

//  --- predictions ------------------------------------------------------------------------------

//  What measurements of this and of neighbouring numbers of groups say of the models' error: measured / predicted.
static double
s_correction (const tl_choose_t *self, size_t groups, tl_inside_t inside)
{
    if (inside == TL_INSIDE_ALTERNATE)
        return 1;
    const double *all = self->corrections[inside == TL_INSIDE_BATCHED];
    if (all[groups] > 0)
        return all[groups];
    size_t below = groups, above = groups;
    while (below > 0 && all[below] <= 0)
        below--;
    while (above <= self->most_groups && all[above] <= 0)
        above++;
    if (above > self->most_groups && below > 0)
        return all[below];
    //  Never measured one by one: the models are the same, and so may be their error.
    if (above > self->most_groups)
        return inside == TL_INSIDE_SERIAL ? s_correction (self, groups, TL_INSIDE_BATCHED) : 1;
    if (below == 0)
        return all[above];
    double at = log ((double)groups / (double)below) / log ((double)above / (double)below);
    return exp (log (all[below]) + at * (log (all[above]) - log (all[below])));
}

static tl_guess_t
s_guess (const tl_choose_t *self, const tl_assign_t *assign, const tl_present_t *present,
         size_t groups, tl_inside_t inside, double round_us)
{
    tl_guess_t guess = {round_us, 0};
    double rounds = (double)present->rounds, merge = 0;
    if (groups > 1 || present->merges)
        merge = tl_costs_expect (self->costs, TL_COST_MERGE, groups, 0).us;
    double us = rounds * round_us / s_correction (self, groups, inside) + merge;
    if (us > 0 && round_us > 0)
        guess.rows_s = rounds * assign->rows / us * 1e6;
    return guess;
}

static tl_present_t
s_present (const tl_choose_t *self)
{
    return (tl_present_t){self->clients,
                          self->workers,
                          self->client_count,
                          self->worker_count,
                          self->holder,
                          self->rounds,
                          false,
                          false};
}

//  Group of each live client as an index of assign->workers, or false if the arrangement of before doesn't fit who is here.
static bool
s_kept (const tl_choose_t *self, const tl_assign_t *assign, size_t *group)
{
    size_t *place = tl_alloc (self->config.workers * sizeof *place), *count;
    count = tl_alloc ((self->groups ? self->groups : 1) * sizeof *count);
    for (size_t i = 0; i < self->config.workers; i++)
        place[i] = TL_CHOOSE_NOBODY;
    for (size_t i = 0; i < assign->worker_count; i++)
        place[assign->workers[i].index] = i;
    bool good = self->groups > 0;
    for (size_t i = 0; good && i < assign->client_count; i++) {
        size_t g = self->group[assign->clients[i].index];
        good = g < self->groups && place[self->worker[g]] != TL_CHOOSE_NOBODY;
        if (good) {
            group[i] = place[self->worker[g]];
            count[g]++;
        }
    }
    for (size_t g = 0; good && g < self->groups; g++)
        good = count[g] > 0;
    free (place);
    free (count);
    return good;
}

void
tl_choose_measured (tl_choose_t *self, uint64_t rows, int64_t us)
{
    //  What was mixed tells of neither.
    bool mixed = self->inside == TL_INSIDE_ALTERNATE;
    if (!self->groups || !self->client_count || mixed || rows == 0 || us <= 0)
        return;
    tl_present_t present = s_present (self);
    tl_assign_t assign;
    tl_assign_init (&assign, self->costs, &present, self->config.micros, self->used, false);
    size_t *group = tl_alloc (assign.client_count * sizeof *group);
    double round_us = 0;
    if (s_kept (self, &assign, group))
        round_us = tl_assign_round (&assign, self->inside, group);
    free (group);
    bool moved = self->begun_us > 0 && fabs (round_us / self->begun_us - 1) > IN_TRANSITION;
    double predicted = assign.rows / round_us, measured = (double)rows / (double)us;
    bool fewer = (double)rows < ALL_ROWS * assign.rows * (double)self->rounds;
    tl_assign_release (&assign);
    if (fewer || !(round_us > 0) || !isfinite (predicted) || predicted <= 0)
        return;
    double ratio = fmin (fmax (measured / predicted, 0.01), 100);
    double *one = &self->corrections[self->inside == TL_INSIDE_BATCHED][self->groups];
    if (*one <= 0)
        *one = ratio;
    else if (!moved)
        *one *= pow (ratio / *one, CORRECTION_GAIN);
}

//  --- words ------------------------------------------------------------------------------------

typedef struct {
    char text[64];
} tl_words_t;

static tl_words_t
s_words (size_t groups, tl_inside_t inside)
{
    tl_words_t words;
    const char *how = inside == TL_INSIDE_SERIAL      ? ", one client after another in each"
                      : inside == TL_INSIDE_ALTERNATE ? ", batched and one by one in turn"
                                                      : "";
    if (groups > 1)
        snprintf (words.text, sizeof words.text, "fanout with %zu groups%s", groups, how);
    else
        snprintf (words.text, sizeof words.text, "%s",
                  inside == TL_INSIDE_SERIAL    ? "serial"
                  : inside == TL_INSIDE_BATCHED ? "batched"
                                                : "one group, batched and one by one in turn");
    return words;
}

//  "412", "0.52": three digits or more.
static tl_words_t
s_rate (double rows_s)
{
    tl_words_t words;
    snprintf (words.text, sizeof words.text,
              rows_s < 10    ? "%.2f"
              : rows_s < 100 ? "%.1f"
                             : "%.0f",
              rows_s);
    return words;
}

static int
s_percent (double rows_s, double other)
{
    double more = other > 0 ? (rows_s / other - 1) * 100 : 0;
    return (int)lround (fmin (fmax (more, -100), 99999));
}

//  --- deciding ---------------------------------------------------------------------------------

typedef struct {
    size_t groups;
    tl_inside_t inside;
} tl_shape_t;

//  Everything a decision looks at.
typedef struct {
    tl_assign_t assign;
    const tl_present_t *present;
    size_t most;    //  groups that who is here allows
    bool changed;   //  somebody came or went since the last decision
    bool unknown;   //  a worker was never measured
    bool kept;      //  the assignment of before still fits
    size_t *before; //  [client_count] that assignment, if kept
    size_t *group;  //  [client_count] the one in hand
} tl_scene_t;

static bool
s_same (const size_t *a, size_t a_count, const size_t *b, size_t b_count)
{
    return a_count == b_count && memcmp (a, b, a_count * sizeof *a) == 0;
}

static void
s_scene_init (tl_choose_t *self, tl_scene_t *scene, const tl_present_t *present)
{
    *scene = (tl_scene_t){.present = present};
    scene->most = present->worker_count < present->client_count ? present->worker_count
                                                                : present->client_count;
    scene->changed =
        !s_same (present->clients, present->client_count, self->clients, self->client_count) ||
        !s_same (present->workers, present->worker_count, self->workers, self->worker_count);
    for (size_t i = 0; i < present->worker_count; i++)
        scene->unknown |= !tl_costs_known (self->costs, present->workers[i]);
    tl_assign_init (&scene->assign, self->costs, present, self->config.micros, self->used, false);
    scene->before = tl_alloc (present->client_count * sizeof *scene->before);
    scene->group = tl_alloc (present->client_count * sizeof *scene->group);
    scene->kept = !scene->changed && s_kept (self, &scene->assign, scene->before);
}

static void
s_scene_release (tl_scene_t *scene)
{
    tl_assign_release (&scene->assign);
    free (scene->before);
    free (scene->group);
}

//  Deals the clients for this shape; who goes where stays as it was unless the change pays.
static tl_guess_t
s_deal (const tl_choose_t *self, tl_scene_t *scene, tl_shape_t shape)
{
    double us = tl_assign_deal (&scene->assign, shape.groups, shape.inside, scene->group);
    if (scene->kept && shape.groups == self->groups) {
        double before = tl_assign_round (&scene->assign, shape.inside, scene->before);
        if (before <= us * (1 + self->config.hysteresis)) {
            memcpy (scene->group, scene->before,
                    scene->present->client_count * sizeof *scene->group);
            us = before;
        }
    }
    return s_guess (self, &scene->assign, scene->present, shape.groups, shape.inside, us);
}

static void
s_candidate (tl_choose_t *self, tl_scene_t *scene, tl_shape_t shape)
{
    tl_decision_t *d = &self->decision;
    if (d->candidate_count == TL_CHOOSE_CANDIDATES)
        return;
    for (size_t i = 0; i < d->candidate_count; i++)
        if (d->candidates[i].groups == shape.groups && d->candidates[i].inside == shape.inside)
            return;
    tl_guess_t guess = s_deal (self, scene, shape);
    tl_candidate_t new = {shape.groups, shape.inside, guess.rows_s};
    size_t at = d->candidate_count++;
    while (at > 0 && d->candidates[at - 1].rows_s < new.rows_s) {
        d->candidates[at] = d->candidates[at - 1];
        at--;
    }
    d->candidates[at] = new;
}

//  So many groups, batched and one by one; with one client a group there is nothing to batch.
static void
s_both (tl_choose_t *self, tl_scene_t *scene, size_t groups)
{
    if (groups < 1 || groups > scene->most)
        return;
    s_candidate (self, scene, (tl_shape_t){groups, TL_INSIDE_BATCHED});
    if (groups < scene->present->client_count)
        s_candidate (self, scene, (tl_shape_t){groups, TL_INSIDE_SERIAL});
}

//  All candidates, best first: every number of groups where that is quick, a geometric series of them where not, always
//  the neighbours of the present one.
static void
s_candidates (tl_choose_t *self, tl_scene_t *scene)
{
    double step =
        scene->present->client_count * scene->present->worker_count > MANY_DEALS ? 2 : 1.3;
    const size_t now[] = {self->groups, self->groups + 1, self->groups - 1, scene->most};
    for (size_t i = 0; i < 4; i++)
        s_both (self, scene, now[i]);
    for (size_t g = 1; g <= scene->most;) {
        s_both (self, scene, g);
        size_t next = (size_t)((double)g * step);
        g = next > g ? next : g + 1;
    }
}

static double
s_predicted (const tl_choose_t *self, tl_shape_t shape)
{
    const tl_decision_t *d = &self->decision;
    for (size_t i = 0; i < d->candidate_count; i++)
        if (d->candidates[i].groups == shape.groups && d->candidates[i].inside == shape.inside)
            return d->candidates[i].rows_s;
    return 0;
}

//  A period to learn from. The widest arrangement measures most workers at once, and rounds in turn batched and one by
//  one tell base from cost per row.
static tl_shape_t
s_probe_wide (tl_choose_t *self, tl_scene_t *scene)
{
    tl_shape_t shape = {scene->most, TL_INSIDE_BATCHED};
    if (scene->present->client_count > scene->most && scene->present->rounds > 1)
        shape.inside = TL_INSIDE_ALTERNATE;
    self->stage = STAGE_WIDE;
    snprintf (self->decision.text, TL_CHOOSE_TEXT, "%s: measures %s before anything is chosen",
              s_words (shape.groups, shape.inside).text,
              self->groups ? "a worker that nobody knows yet" : "workers, clients and links");
    return shape;
}

static tl_shape_t
s_probe_single (tl_choose_t *self, tl_scene_t *scene)
{
    self->stage = STAGE_SINGLE;
    snprintf (self->decision.text, TL_CHOOSE_TEXT,
              "batched: measures %s, after %s; then the fastest is chosen",
              scene->present->client_count == 1 ? "another worker" : "all clients in one group",
              s_words (self->groups, self->inside).text);
    return (tl_shape_t){1, TL_INSIDE_BATCHED};
}

//  After probing, or because somebody came or went: the best, without a margin.
static tl_shape_t
s_choose_anew (tl_choose_t *self, const char *why)
{
    const tl_decision_t *d = &self->decision;
    const tl_candidate_t *best = &d->candidates[0];
    char against[224] = "there is no other";
    if (d->candidate_count > 1)
        snprintf (against, sizeof against, "against %s %s (%+d %%)",
                  s_rate (d->candidates[1].rows_s).text,
                  s_words (d->candidates[1].groups, d->candidates[1].inside).text,
                  s_percent (best->rows_s, d->candidates[1].rows_s));
    snprintf (self->decision.text, TL_CHOOSE_TEXT, "%s: predicted %s rows/s %s, %s",
              s_words (best->groups, best->inside).text, s_rate (best->rows_s).text, against, why);
    self->stage = STAGE_CHOSEN;
    return (tl_shape_t){best->groups, best->inside};
}

//  The arrangement stays until another has promised more by the margin for RUNNING decisions in a row.
static tl_shape_t
s_choose_on (tl_choose_t *self)
{
    const tl_candidate_t *best = &self->decision.candidates[0];
    tl_shape_t now = {self->groups, self->inside};
    double here = s_predicted (self, now), margin = self->config.hysteresis;
    tl_words_t new = s_words (best->groups, best->inside), old = s_words (now.groups, now.inside);
    char *text = self->decision.text;
    if (best->rows_s <= here * (1 + margin)) {
        self->wins = 0;
        snprintf (text, TL_CHOOSE_TEXT,
                  "%s stays: predicted %s rows/s, nothing else promises %g %% more", old.text,
                  s_rate (here).text, margin * 100);
        return now;
    }
    int more = s_percent (best->rows_s, here);
    if (++self->wins < RUNNING) {
        snprintf (text, TL_CHOOSE_TEXT,
                  "%s stays for now: %s promises %s rows/s against %s (%+d %%), first round in a "
                  "row",
                  old.text, new.text, s_rate (best->rows_s).text, s_rate (here).text, more);
        return now;
    }
    snprintf (text, TL_CHOOSE_TEXT,
              "%s: predicted %s rows/s against %s %s (%+d %%), second round in a row", new.text,
              s_rate (best->rows_s).text, s_rate (here).text, old.text, more);
    return (tl_shape_t){best->groups, best->inside};
}

static tl_shape_t
s_pinned (tl_choose_t *self, tl_scene_t *scene)
{
    tl_shape_t shape = {1, TL_INSIDE_BATCHED};
    if (self->config.mode == TL_CHOOSE_FANOUT)
        shape.groups = scene->most;
    else if (self->config.mode == TL_CHOOSE_SERIAL)
        shape.inside = TL_INSIDE_SERIAL;
    s_candidate (self, scene, shape);
    double rows_s = self->decision.candidates[0].rows_s;
    if (scene->assign.measured)
        snprintf (self->decision.text, TL_CHOOSE_TEXT,
                  "%s, as schedule.mode says: predicted %s rows/s",
                  s_words (shape.groups, shape.inside).text, s_rate (rows_s).text);
    else
        snprintf (self->decision.text, TL_CHOOSE_TEXT, "%s, as schedule.mode says",
                  s_words (shape.groups, shape.inside).text);
    return shape;
}

static tl_shape_t
s_auto (tl_choose_t *self, tl_scene_t *scene)
{
    bool anew = scene->changed || self->stage != STAGE_CHOSEN;
    if (self->stage == STAGE_NEW && scene->present->client_count == 1 &&
        scene->present->worker_count == 1) {
        self->stage = STAGE_CHOSEN;
        snprintf (self->decision.text, TL_CHOOSE_TEXT,
                  "batched: with one client and one worker there is nothing to choose");
        return (tl_shape_t){1, TL_INSIDE_BATCHED};
    }
    bool wide = self->stage == STAGE_NEW ||
                (self->stage == STAGE_CHOSEN && scene->changed && scene->unknown);
    bool single = self->stage == STAGE_WIDE && (self->groups > 1 || scene->unknown);
    if (wide || single) {
        self->decision.probing = true;
        return wide ? s_probe_wide (self, scene) : s_probe_single (self, scene);
    }
    bool probed = self->stage != STAGE_CHOSEN;
    s_candidates (self, scene);
    if (anew) {
        self->wins = 0;
        return s_choose_anew (self, probed ? "first choice after probing"
                                           : "chosen anew because somebody came or went");
    }
    return s_choose_on (self);
}

//  The shape in hand becomes the arrangement of the coming period.
static void
s_arrange (tl_choose_t *self, tl_scene_t *scene, tl_shape_t shape)
{
    tl_decision_t *d = &self->decision;
    const tl_present_t *present = scene->present;
    if (d->probing && scene->unknown) {
        tl_assign_release (&scene->assign);
        tl_assign_init (&scene->assign, self->costs, present, self->config.micros, self->used,
                        true);
        scene->kept = false;
    }
    tl_guess_t guess = s_deal (self, scene, shape);
    d->changed = shape.groups != self->groups || shape.inside != self->inside;
    d->rearranged = d->changed;
    for (size_t i = 0; i < present->client_count && !d->rearranged; i++) {
        size_t g = self->group[present->clients[i]];
        d->rearranged =
            g >= self->groups || self->worker[g] != scene->assign.workers[scene->group[i]].index;
    }
    self->groups = d->groups = shape.groups;
    self->inside = d->inside = shape.inside;
    self->begun_us = scene->assign.measured ? guess.round_us : 0;
    memset (self->used, 0, self->config.workers * sizeof *self->used);
    //  Groups are numbered by their first clients, so that equal arrangements look equal.
    size_t *number = tl_alloc (present->worker_count * sizeof *number), next = 0;
    for (size_t i = 0; i < present->worker_count; i++)
        number[i] = TL_CHOOSE_NOBODY;
    for (size_t i = 0; i < self->config.clients; i++)
        self->group[i] = TL_CHOOSE_NOBODY;
    for (size_t i = 0; i < present->client_count; i++) {
        size_t at = scene->group[i];
        if (number[at] == TL_CHOOSE_NOBODY) {
            number[at] = next;
            self->worker[next++] = scene->assign.workers[at].index;
            self->used[scene->assign.workers[at].index] = true;
        }
        self->group[present->clients[i]] = number[at];
    }
    tl_assert (next == shape.groups);
    free (number);
    d->worker = self->worker;
    d->group = self->group;
    d->rows_s = scene->assign.measured ? guess.rows_s : 0;
    d->best_s = d->candidate_count ? d->candidates[0].rows_s : 0;
}

const tl_decision_t *
tl_choose_next (tl_choose_t *self, const tl_present_t *present)
{
    tl_assert (present->client_count > 0 && present->client_count <= self->config.clients);
    tl_assert (present->worker_count > 0 && present->worker_count <= self->config.workers);
    tl_assert (present->rounds > 0);
    memset (&self->decision, 0, sizeof self->decision);
    tl_scene_t scene;
    s_scene_init (self, &scene, present);
    tl_shape_t shape =
        self->config.mode == TL_CHOOSE_AUTO ? s_auto (self, &scene) : s_pinned (self, &scene);
    s_arrange (self, &scene, shape);
    if (self->decision.changed)
        self->wins = 0;
    self->client_count = present->client_count;
    self->worker_count = present->worker_count;
    memcpy (self->clients, present->clients, present->client_count * sizeof *self->clients);
    memcpy (self->workers, present->workers, present->worker_count * sizeof *self->workers);
    self->holder = present->holder;
    self->rounds = present->rounds;
    s_scene_release (&scene);
    tl_costs_unsettle (self->costs);
    tl_costs_doubt_merge (self->costs, present->disturbed);
    return &self->decision;
}
