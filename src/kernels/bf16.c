//  bf16: which instructions for bf16 this CPU has and the system lets us use.

#include "kernels/bf16.h"

#include <cpuid.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

typedef enum { S_UNKNOWN, S_NONE, S_AVX512, S_AMX } s_kind_t;
static _Atomic s_kind_t s_chosen;

static s_kind_t
s_choose (void)
{
    unsigned a, b, c, d, a1 = 0, b1, c1, d1;
    __builtin_cpu_init ();
    if (!__builtin_cpu_supports ("avx512f") || !__builtin_cpu_supports ("avx512bw") ||
        !__builtin_cpu_supports ("avx512vl") || !__get_cpuid_count (7, 0, &a, &b, &c, &d) ||
        !__get_cpuid_count (7, 1, &a1, &b1, &c1, &d1) || !(a1 & bit_AVX512BF16))
        return S_NONE;
    const char *pinned = getenv ("TL_BF16");
    if (pinned && strcmp (pinned, "none") == 0)
        return S_NONE;
    //  Bits 24 and 22 of edx: AMX-TILE and AMX-BF16. The kernel hands the registers out on request.
    bool amx = d & 1u << 24 && d & 1u << 22 && !(pinned && strcmp (pinned, "avx512") == 0);
    return amx && syscall (SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 ? S_AMX
                                                                                         : S_AVX512;
}

static s_kind_t
s_kind (void)
{
    s_kind_t kind = atomic_load_explicit (&s_chosen, memory_order_acquire);
    if (kind == S_UNKNOWN) {
        kind = s_choose ();
        atomic_store_explicit (&s_chosen, kind, memory_order_release);
    }
    return kind;
}

const char *
tl_bf16_name (void)
{
    s_kind_t kind = s_kind ();
    return kind == S_AMX ? "amx" : kind == S_AVX512 ? "avx512" : NULL;
}

bool
tl_bf16_uses_amx (void)
{
    return s_kind () == S_AMX;
}
