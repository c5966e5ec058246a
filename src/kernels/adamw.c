//  adamw: one step of torch.optim.AdamW on one vector of weights.

#include "kernels/loops.h"

void
TL_KERNEL (adamw) (real_t *w, real_t *m, real_t *v, const real_t *gradient, size_t count,
                   double coefficient, double lr, double beta1, double beta2, double eps,
                   double decay, uint64_t step)
{
    tl_assert (step > 0);
    double correction1 = 1 - pow (beta1, (double)step);
    double correction2 = 1 - pow (beta2, (double)step);
    real_t scale = (real_t)coefficient, keep = (real_t)(1 - lr * decay);
    real_t toward = (real_t)(1 - beta1), b2 = (real_t)beta2, toward2 = (real_t)(1 - beta2);
    real_t root = (real_t)sqrt (correction2), rate = (real_t)(lr / correction1);
    real_t least = (real_t)eps;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real_t g = scale * gradient[i];
        real_t first = m[i] + (g - m[i]) * toward;
        real_t second = v[i] * b2 + toward2 * g * g;
        m[i] = first;
        v[i] = second;
#ifdef TL_IN_DOUBLE
        real_t denominator = sqrt (second) / root + least;
#else
        real_t denominator = sqrtf (second) / root + least;
#endif
        w[i] = w[i] * keep - rate * (first / denominator);
    }
}
