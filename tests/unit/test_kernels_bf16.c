//  Products in bf16 against sums in double over the same rounded values. TL_BF16 picks the instructions.

#include "unit/cmocka_all.h"

#include "kernels/bf16.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

//  count values that bf16 holds exactly.
static float *
s_rounded (uint64_t seed, size_t count)
{
    tl_stream_t stream = {.seed = seed, .purpose = TL_DRAW_INIT};
    float *values = tl_alloc (count * sizeof *values);
    uint16_t *half = tl_alloc (count * sizeof *half);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)tl_random_normal (&stream, i);
    tl_narrow (half, values, TL_BF16, count);
    tl_widen (values, half, TL_BF16, count);
    free (half);
    return values;
}

static void
s_expect (const char *what, const float *got, const double *expected, size_t count)
{
    double worst = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        worst = fmax (worst, fabs (got[i] - expected[i]));
        most = fmax (most, fabs (expected[i]));
    }
    if (!(worst <= 2e-6 * most))
        fail_msg ("%s: off by %g where the largest is %g, expected at most 2e-6 of it", what, worst,
                  most);
}

typedef struct {
    size_t n, in, out;
    float *x, *y, *dx, *wide, *bias, *scratch;
    uint16_t *w;
} case_t;

static case_t
s_case (size_t n, size_t in, size_t out)
{
    case_t self = {.n = n, .in = in, .out = out};
    self.x = s_rounded (1, n * in);
    self.y = s_rounded (2, n * out);
    self.dx = s_rounded (3, n * in);
    self.wide = s_rounded (4, in * out);
    self.bias = s_rounded (5, out);
    self.w = tl_alloc (in * out * sizeof *self.w);
    self.scratch = tl_alloc (tl_bf16_scratch (n, in, out) * sizeof (float));
    tl_narrow (self.w, self.wide, TL_BF16, in * out);
    return self;
}

static void
s_free (case_t *self)
{
    free (self->x);
    free (self->y);
    free (self->dx);
    free (self->wide);
    free (self->bias);
    free (self->w);
    free (self->scratch);
}

static void
s_forward (case_t *self, double alpha, double beta, bool bias)
{
    double *expected = tl_alloc (self->n * self->out * sizeof *expected);
    for (size_t r = 0; r < self->n; r++)
        for (size_t o = 0; o < self->out; o++) {
            double sum = 0;
            for (size_t i = 0; i < self->in; i++)
                sum += (double)self->x[r * self->in + i] * self->wide[o * self->in + i];
            expected[r * self->out + o] = alpha * sum + (bias ? self->bias[o] : 0) +
                                          (beta != 0 ? beta * self->y[r * self->out + o] : 0);
        }
    if (beta == 0)
        self->y[0] = NAN; //  is not read
    tl_bf16_forward (self->y, self->x, self->w, bias ? self->bias : NULL, self->n, self->in,
                     self->out, alpha, beta, self->scratch);
    s_expect ("forward", self->y, expected, self->n * self->out);
    free (expected);
}

static void
s_backward (case_t *self, double alpha, double beta)
{
    double *expected = tl_alloc (self->n * self->in * sizeof *expected);
    for (size_t r = 0; r < self->n; r++)
        for (size_t i = 0; i < self->in; i++) {
            double sum = 0;
            for (size_t o = 0; o < self->out; o++)
                sum += (double)self->y[r * self->out + o] * self->wide[o * self->in + i];
            expected[r * self->in + i] =
                alpha * sum + (beta != 0 ? beta * self->dx[r * self->in + i] : 0);
        }
    if (beta == 0)
        self->dx[0] = NAN;
    tl_bf16_backward_input (self->dx, self->y, self->w, self->n, self->in, self->out, alpha, beta,
                            self->scratch);
    s_expect ("backward", self->dx, expected, self->n * self->in);
    free (expected);
}

static void
test_products_of_all_sizes (void **state)
{
    //  Whole blocks, odd ends everywhere, one row, a sum deeper than a panel.
    static const size_t sizes[][3] = {{64, 96, 160}, {33, 70, 45}, {1, 32, 32},
                                      {17, 16, 16},  {40, 48, 80}, {5, 64, 4100}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int variant = 0; variant < 2; variant++) {
            case_t item = s_case (sizes[i][0], sizes[i][1], sizes[i][2]);
            s_backward (&item, variant ? 0.5 : 1, variant ? 2 : 0);
            s_forward (&item, variant ? 0.5 : 1, variant ? 2 : 0, variant);
            s_free (&item);
        }
}

static void
test_bits_do_not_depend_on_threads (void **state)
{
    case_t one = s_case (70, 64, 224), two = s_case (70, 64, 224);
    tl_bf16_backward_input (one.dx, one.y, one.w, 70, 64, 224, 1, 0, one.scratch);
    tl_bf16_forward (one.y, one.x, one.w, NULL, 70, 64, 224, 1, 0, one.scratch);
    tl_kernels_use (3);
    free (two.scratch);
    two.scratch = tl_alloc (tl_bf16_scratch (70, 64, 224) * sizeof (float));
    tl_bf16_backward_input (two.dx, two.y, two.w, 70, 64, 224, 1, 0, two.scratch);
    tl_bf16_forward (two.y, two.x, two.w, NULL, 70, 64, 224, 1, 0, two.scratch);
    assert_memory_equal (one.y, two.y, 70 * 224 * sizeof (float));
    assert_memory_equal (one.dx, two.dx, 70 * 64 * sizeof (float));
    s_free (&one);
    s_free (&two);
}

int
main (void)
{
    if (!tl_bf16_name ()) {
        fprintf (stderr, "skipped: this CPU has no instructions for bf16\n");
        return 77;
    }
    fprintf (stderr, "bf16 by %s\n", tl_bf16_name ());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_products_of_all_sizes),
        cmocka_unit_test (test_bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
