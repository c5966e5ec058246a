#include "plot.h"

#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LEFT = 150, //  of the plots; labels stand to the left of it
    WIDE = 900, //  of the plots
    RIGHT = 30,
    TOP = 84,
    RATE = 180, //  height of the plot of rows per second
    BAND = 22,  //  of the arrangements below it
    LANE = 20,  //  of a worker's lane
    GAP = 26,
    MOST_LANES = 20
};

//  Told apart by people who don't see all colours as well (Okabe and Ito), and by their order from below.
static const char *const s_colors[TL_SIM_STATES] = {"#0072b2", "#e69f00", "#cc79a7", "#f0e442",
                                                    "#b3b3b3", "#ececec", "#ffffff"};
static const char *const s_meanings[TL_SIM_STATES] = {
    "computes", "waits for rows", "waits for credit", "waits for commit", "at the line", "spare",
    "away"};
static const char *const s_bands[] = {"#cfe3f1", "#f7e3bf", "#cdeadd", "#efd7e4", "#e4e4e4"};

typedef struct {
    FILE *out;
    const tl_sim_spec_t *spec;
    const tl_sim_result_t *result;
    double most; //  rows/s at the top of the plot
} s_plot_t;

static double
s_x (const s_plot_t *self, double seconds)
{
    double all = self->result->seconds > 0 ? self->result->seconds : 1;
    return LEFT + seconds / all * WIDE;
}

//  Names and sentences: the few characters that mean something in XML.
static void
s_text (FILE *out, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            fputs ("&lt;", out);
        else if (*text == '&')
            fputs ("&amp;", out);
        else
            fputc (*text, out);
}

//  1, 2 or 5 times a power of ten, so that about `count` of them make `most`.
static double
s_tick (double most, int count)
{
    double raw = most / count, base = pow (10, floor (log10 (raw > 0 ? raw : 1))), m = raw / base;
    return base * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static void
s_head (const s_plot_t *self, int height)
{
    const tl_sim_spec_t *spec = self->spec;
    const tl_sim_result_t *r = self->result;
    fprintf (self->out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
             "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
             "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
             "<text x=\"%d\" y=\"26\" font-size=\"17\">",
             LEFT + WIDE + RIGHT, height, LEFT + WIDE + RIGHT, height, LEFT);
    s_text (self->out, spec->name);
    fprintf (self->out,
             "</text>\n<text x=\"%d\" y=\"46\" fill=\"#555\">%zu workers, %zu clients, %llu rounds "
             "in %.1f s: %.0f rows/s</text>\n",
             LEFT, r->worker_count, r->client_count, (unsigned long long)r->rounds, r->seconds,
             r->seconds > 0 ? (double)r->rows / r->seconds : 0);
    double x = LEFT;
    for (int s = 0; s < TL_SIM_STATES; s++) {
        fprintf (self->out,
                 "<rect x=\"%.0f\" y=\"57\" width=\"12\" height=\"12\" fill=\"%s\" "
                 "stroke=\"#888\" stroke-width=\"0.5\"/><text x=\"%.0f\" y=\"67\">%s</text>\n",
                 x, s_colors[s], x + 17, s_meanings[s]);
        x += 128;
    }
}

static void
s_axes (const s_plot_t *self, double bottom)
{
    double tick = s_tick (self->most, 4), all = self->result->seconds;
    for (double rate = 0; rate <= self->most; rate += tick) {
        double y = TOP + RATE - rate / self->most * RATE;
        fprintf (self->out,
                 "<path d=\"M%d %.1fh%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" "
                 "text-anchor=\"end\">%.6g</text>\n",
                 LEFT, y, WIDE, LEFT - 8, y + 4, rate);
    }
    fprintf (self->out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#555\">rows/s</text>\n",
             LEFT - 80, TOP + 4);
    tick = s_tick (all, 9);
    for (double at = 0; all > 0 && at <= all; at += tick)
        fprintf (self->out,
                 "<path d=\"M%.1f %.1fv5\" stroke=\"#555\"/><text x=\"%.1f\" y=\"%.1f\" "
                 "text-anchor=\"middle\">%.6g s</text>\n",
                 s_x (self, at), bottom, s_x (self, at), bottom + 19, at);
}

static double
s_rate (const tl_sim_period_t *p)
{
    return p->end > p->at ? (double)p->rows / (p->end - p->at) : 0;
}

static void
s_arrangement (char *text, size_t size, const tl_sim_period_t *p)
{
    if (p->groups == 1)
        snprintf (text, size, "%s", p->inside == TL_INSIDE_SERIAL ? "serial" : "batched");
    else
        snprintf (text, size, "fanout %zu%s", p->groups,
                  p->inside == TL_INSIDE_SERIAL ? " one by one" : "");
}

//  Bars of what was measured, ticks at what was predicted, and below them the arrangements, each run of equal ones as one.
static void
s_periods (const s_plot_t *self)
{
    const tl_sim_result_t *r = self->result;
    for (size_t i = 0; i < r->period_count; i++) {
        const tl_sim_period_t *p = &r->periods[i];
        double x = s_x (self, p->at), wide = fmax (s_x (self, p->end) - x, 0.3);
        double high = s_rate (p) / self->most * RATE;
        fprintf (self->out,
                 "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" "
                 "stroke=\"#fff\" stroke-width=\"%.1f\"><title>",
                 x, TOP + RATE - high, wide, high, p->probing ? "#9ecae1" : "#4292c6",
                 wide > 6 ? 1.0 : 0.0);
        fprintf (self->out, "from round %llu: %.0f rows/s. ", (unsigned long long)p->round,
                 s_rate (p));
        s_text (self->out, p->text);
        fputs ("</title></rect>\n", self->out);
        double y = TOP + RATE - fmin (p->predicted, self->most) / self->most * RATE;
        if (p->predicted > 0)
            fprintf (self->out,
                     "<path d=\"M%.1f %.1fh%.1f\" stroke=\"#d55e00\" stroke-width=\"2\"/>\n", x, y,
                     wide);
    }
    size_t band = 0;
    for (size_t i = 0, next; i < r->period_count; i = next, band++) {
        const tl_sim_period_t *p = &r->periods[i];
        for (next = i + 1; next < r->period_count && r->periods[next].groups == p->groups &&
                           r->periods[next].inside == p->inside;)
            next++;
        double x = s_x (self, p->at), wide = s_x (self, r->periods[next - 1].end) - x;
        char text[48];
        s_arrangement (text, sizeof text, p);
        fprintf (self->out,
                 "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>", x,
                 TOP + RATE + 4, fmax (wide, 0.3), BAND, s_bands[band % 5]);
        s_text (self->out, p->text);
        fputs ("</title></rect>\n", self->out);
        if (wide > 62)
            fprintf (self->out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", x + 5, TOP + RATE + 19,
                     text);
    }
    fprintf (self->out,
             "<path d=\"M%d %dh20\" stroke=\"#d55e00\" stroke-width=\"2\"/><text x=\"%d\" y=\"%d\" "
             "fill=\"#555\">predicted</text>\n",
             LEFT + WIDE - 82, TOP - 42, LEFT + WIDE - 56, TOP - 38);
}

//  One lane: stacked shares of each slice's time, the mean of workers first .. last - 1.
static void
s_lane (const s_plot_t *self, size_t first, size_t last, double y)
{
    const tl_sim_result_t *r = self->result;
    size_t bins = r->bin > 0 ? (size_t)ceil (r->seconds / r->bin) : 0;
    bins = bins < TL_SIM_BINS ? bins : TL_SIM_BINS;
    double below[TL_SIM_BINS] = {0}, above[TL_SIM_BINS];
    for (int s = 0; s < TL_SIM_AWAY; s++) {
        double any = 0;
        for (size_t b = 0; b < bins; b++) {
            double sum = 0, all = 0;
            for (size_t w = first; w < last; w++)
                for (int k = 0; k < TL_SIM_STATES; k++) {
                    sum += k == s ? r->workers[w].bins[b][k] : 0;
                    all += r->workers[w].bins[b][k];
                }
            above[b] = below[b] + (all > 0 ? sum / all : 0);
            any += above[b] - below[b];
        }
        if (any <= 0)
            continue;
        fprintf (self->out, "<path fill=\"%s\" d=\"M", s_colors[s]);
        for (size_t b = 0; b < bins; b++)
            fprintf (self->out, "%.1f %.1fH%.1fL", s_x (self, (double)b * r->bin),
                     y + LANE - above[b] * (LANE - 2),
                     s_x (self, fmin ((double)(b + 1) * r->bin, r->seconds)));
        for (size_t b = bins; b-- > 0;)
            fprintf (self->out, "%.1f %.1fH%.1f%s",
                     s_x (self, fmin ((double)(b + 1) * r->bin, r->seconds)),
                     y + LANE - below[b] * (LANE - 2), s_x (self, (double)b * r->bin),
                     b ? "L" : "z\"/>\n");
        for (size_t b = 0; b < bins; b++)
            below[b] = above[b];
    }
    fprintf (self->out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 8, y + 15);
    s_text (self->out, r->workers[first].name);
    if (last > first + 1)
        fprintf (self->out, " (%zu)", last - first);
    fputs ("</text>\n", self->out);
}

char *
tl_sim_plot (const tl_sim_spec_t *spec, const tl_sim_result_t *result)
{
    char *text = NULL;
    size_t size = 0;
    s_plot_t self = {open_memstream (&text, &size), spec, result, 0};
    for (size_t i = 0; i < result->period_count; i++)
        self.most = fmax (self.most, s_rate (&result->periods[i]));
    self.most = self.most > 0 ? self.most * 1.08 : 1;
    size_t lanes = result->worker_count < MOST_LANES ? result->worker_count : MOST_LANES;
    double lanes_at = TOP + RATE + BAND + GAP, bottom = lanes_at + (double)lanes * LANE + 6;
    s_head (&self, (int)bottom + 36);
    s_axes (&self, bottom);
    s_periods (&self);
    for (size_t i = 0; i < lanes; i++)
        s_lane (&self, i * result->worker_count / lanes, (i + 1) * result->worker_count / lanes,
                lanes_at + (double)i * LANE);
    fputs ("</svg>\n", self.out);
    fclose (self.out);
    return text;
}
