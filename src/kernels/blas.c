//  blas: OpenBLAS through dlopen, so that actors which never compute never load it or its threads.

#include "kernels/kernels.h"
#include "kernels/blas.h"
#include "kernels/pool.h"
#include "assert.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S_ROW_MAJOR = 101, S_PLAIN = 111, S_TRANSPOSED = 112 };

typedef void (*s_sgemm_t) (int order, int transpose_a, int transpose_b, int m, int n, int k,
                           float alpha, const float *a, int lda, const float *b, int ldb,
                           float beta, float *c, int ldc);
typedef void (*s_dgemm_t) (int order, int transpose_a, int transpose_b, int m, int n, int k,
                           double alpha, const double *a, int lda, const double *b, int ldb,
                           double beta, double *c, int ldc);

//  What was loaded; written once, under the lock, before any gemm.
static struct {
    bool open;   //  tl_blas_open succeeded
    bool naive;  //  TL_BLAS=naive: the referee instead of a library
    int threads; //  as last asked for
    s_sgemm_t sgemm;
    s_dgemm_t dgemm;
    void (*set_threads) (int); //  may be NULL
    char *(*core) (void);      //  may be NULL
} s_blas;
static pthread_mutex_t s_lock = PTHREAD_MUTEX_INITIALIZER;

//  OpenBLAS 0.3.21 takes a processor younger than itself for a Prescott and computes at an eighth of its
//  speed. We name its kernels by what the processor can do, unless the user did. NULL: let it choose.
static const char *
s_core_type (void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports ("avx512f") && __builtin_cpu_supports ("avx512bw") &&
        __builtin_cpu_supports ("avx512dq") && __builtin_cpu_supports ("avx512vl"))
        return "SkylakeX";
    if (__builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma"))
        return "Haswell";
#endif
    return NULL;
}

static int
s_load (int threads, tl_error_t *err)
{
    const char *wanted = getenv ("TL_BLAS");
    s_blas.naive = wanted && strcmp (wanted, "naive") == 0;
    if (s_blas.naive)
        return 0;
    char text[16];
    snprintf (text, sizeof text, "%d", threads);
    //  The library reads these while it loads. 2^4 turns of waiting instead of 2^26: its idle threads
    //  would otherwise take the other actors' cores for 20 ms after every call.
    setenv ("OPENBLAS_NUM_THREADS", text, 1);
    setenv ("OPENBLAS_THREAD_TIMEOUT", "4", 1);
    if (s_core_type ())
        setenv ("OPENBLAS_CORETYPE", s_core_type (), 0);
    void *library = dlopen ("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return tl_fail (err, TL_FAILED,
                        "OpenBLAS can't be loaded (%s); install the package "
                        "libopenblas0-pthread",
                        dlerror ());
    s_blas.sgemm = (s_sgemm_t)dlsym (library, "cblas_sgemm");
    s_blas.dgemm = (s_dgemm_t)dlsym (library, "cblas_dgemm");
    s_blas.set_threads = (void (*) (int))dlsym (library, "openblas_set_num_threads");
    s_blas.core = (char *(*)(void))dlsym (library, "openblas_get_corename");
    if (!s_blas.sgemm || !s_blas.dgemm) {
        dlclose (library);
        return tl_fail (err, TL_FAILED,
                        "libopenblas.so.0 has no cblas_sgemm; install the package "
                        "libopenblas0-pthread in place of the library that is there");
    }
    return 0;
}

int
tl_blas_open (int threads, tl_error_t *err)
{
    if (threads < 1)
        threads = 1;
    pthread_mutex_lock (&s_lock);
    int rc = s_blas.open ? 0 : s_load (threads, err);
    //  Also right after loading: somebody else may have loaded the library before us.
    if (rc == 0 && s_blas.set_threads && s_blas.threads != threads)
        s_blas.set_threads (threads);
    if (rc == 0)
        s_blas.threads = threads;
    if (rc == 0)
        tl_pool_open (threads);
    //  Not written again: gemm reads it without the lock.
    if (rc == 0 && !s_blas.open)
        s_blas.open = true;
    pthread_mutex_unlock (&s_lock);
    return rc;
}

int
tl_blas_threads (void)
{
    return s_blas.threads;
}

const char *
tl_blas_name (void)
{
    if (!s_blas.open)
        return "not loaded";
    return s_blas.naive ? "naive" : s_blas.core ? s_blas.core () : "openblas";
}

//  The library takes int sizes; nothing of ours comes near, but a wrapped size would be silent.
static void
s_check (size_t m, size_t n, size_t k, size_t lda, size_t ldb, size_t ldc)
{
    tl_assert (s_blas.open);
    tl_assert (m <= INT_MAX && n <= INT_MAX && k <= INT_MAX);
    tl_assert (lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX);
}

void
tl_gemm_f32 (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha,
             const float *a, size_t lda, const float *b, size_t ldb, double beta, float *c,
             size_t ldc)
{
    s_check (m, n, k, lda, ldb, ldc);
    if (s_blas.naive)
        tl_gemm_naive_base (transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        s_blas.sgemm (S_ROW_MAJOR, transpose_a ? S_TRANSPOSED : S_PLAIN,
                      transpose_b ? S_TRANSPOSED : S_PLAIN, (int)m, (int)n, (int)k, (float)alpha, a,
                      (int)lda, b, (int)ldb, (float)beta, c, (int)ldc);
}

void
tl_gemm_f64 (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha,
             const double *a, size_t lda, const double *b, size_t ldb, double beta, double *c,
             size_t ldc)
{
    s_check (m, n, k, lda, ldb, ldc);
    if (s_blas.naive)
        tl_gemm_naive_f64 (transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    else
        s_blas.dgemm (S_ROW_MAJOR, transpose_a ? S_TRANSPOSED : S_PLAIN,
                      transpose_b ? S_TRANSPOSED : S_PLAIN, (int)m, (int)n, (int)k, alpha, a,
                      (int)lda, b, (int)ldb, beta, c, (int)ldc);
}
