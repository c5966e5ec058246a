/*  kernels_run: calls every kernel of one table once on repeatable inputs and records what comes out.
    Included with REAL, TABLE, FILL and PART (a name and its suffix) defined, once for float and once
    for double; no guard. Sizes and s_ids are the including file's.                                */

static void
PART (embedding) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0];
    FILL (b[9], MOST, 99, 1);
    k->embedding_forward (out, b[9], TL_F32, s_ids, N, H);
    s_keep (record, "embedding_forward", out, sizeof (REAL), N * H);
    k->embedding_backward (out, b[9], s_ids, N, H);
    s_keep (record, "embedding_backward", out, sizeof (REAL), VOCAB * H);
}

static void
PART (norms) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0], *out2 = b[1], *out3 = b[2];
    k->layernorm_forward (out, out2, out3, b[3], b[4], b[5], N, H, 1e-5);
    s_keep (record, "layernorm_forward", out, sizeof (REAL), N * H);
    s_keep (record, "layernorm mean", out2, sizeof (REAL), N);
    s_keep (record, "layernorm rstd", out3, sizeof (REAL), N);
    k->layernorm_backward (out, b[6], b[7], b[8], b[3], b[4], out2, out3, N, H);
    s_keep (record, "layernorm dx", out, sizeof (REAL), N * H);
    s_keep (record, "layernorm dw", b[6], sizeof (REAL), H);
    s_keep (record, "layernorm db", b[7], sizeof (REAL), H);
    k->rmsnorm_forward (out, out2, b[3], b[4], N, H, 1e-6);
    s_keep (record, "rmsnorm_forward", out, sizeof (REAL), N * H);
    k->rmsnorm_backward (out, b[6], b[8], b[3], b[4], out2, N, H);
    s_keep (record, "rmsnorm dx", out, sizeof (REAL), N * H);
    s_keep (record, "rmsnorm dw", b[6], sizeof (REAL), H);
}

static void
PART (linear) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0], *out2 = b[1];
    k->linear_forward (out, b[3], b[4], TL_F32, b[5], N, IN, OUT, 1, 0);
    s_keep (record, "linear_forward", out, sizeof (REAL), N * OUT);
    k->linear_forward (out, b[3], b[4], TL_F32, b[5], 3, IN, OUT, 1, 1);
    s_keep (record, "linear_forward, few rows", out, sizeof (REAL), 3 * OUT);
    k->linear_backward_input (out, b[3], b[4], TL_F32, N, IN, OUT, 2, 0);
    s_keep (record, "linear_backward_input", out, sizeof (REAL), N * IN);
    k->linear_backward_weight (out, out2, b[3], b[4], N, IN, OUT, 1);
    s_keep (record, "linear_backward_weight", out, sizeof (REAL), IN * OUT);
    s_keep (record, "linear_backward_weight db", out2, sizeof (REAL), OUT);
}

static void
PART (rope) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0];
    for (tl_rope_t style = TL_ROPE_HALF; style <= TL_ROPE_INTERLEAVED; style++) {
        FILL (out, MOST, 1, 1);
        k->rope (out, b[3], b[4], N, 100, 2, 50, 3, 46, style, style == TL_ROPE_HALF ? 1 : -1);
        s_keep (record, "rope", out, sizeof (REAL), N * 100);
    }
}

static void
PART (attention) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0], *out2 = b[1], *out3 = b[2];
    tl_attention_t shape = {T, T, 4, 2, D, 4 * D, 2 * D, 2 * D, 4 * D, D, D, D, 5, 1 / sqrt (D)};
    REAL *scratch = calloc (tl_attention_scratch (&shape, true), sizeof (REAL));
    k->attention_forward (out, out2, b[3], b[4], b[5], &shape, scratch);
    s_keep (record, "attention_forward", out, sizeof (REAL), T * 4 * D);
    s_keep (record, "attention lse", out2, sizeof (REAL), 4 * T);
    k->attention_backward (b[6], b[7], b[8], out3, b[3], b[4], b[5], out, out2, &shape, scratch);
    s_keep (record, "attention dq", b[6], sizeof (REAL), T * 4 * D);
    s_keep (record, "attention dk", b[7], sizeof (REAL), T * 2 * D);
    s_keep (record, "attention dv", b[8], sizeof (REAL), T * 2 * D);
    shape.rows = 2;
    k->attention_forward (out, out2, b[3], b[4], b[5], &shape, scratch);
    s_keep (record, "attention_forward, few rows", out, sizeof (REAL), 2 * 4 * D);
    free (scratch);
}

static void
PART (activation) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0], *out2 = b[1];
    FILL (b[3], MOST, 4, 3);
    k->gelu_forward (out, b[3], N * H);
    s_keep (record, "gelu_forward", out, sizeof (REAL), N * H);
    k->gelu_backward (out, b[4], b[3], N * H);
    s_keep (record, "gelu_backward", out, sizeof (REAL), N * H);
    k->swiglu_forward (out, b[3], b[4], N, F, F + 5);
    s_keep (record, "swiglu_forward", out, sizeof (REAL), N * F);
    k->swiglu_backward (out, out2, b[5], b[3], b[4], N, F, F + 5);
    s_keep (record, "swiglu dgate", out, sizeof (REAL), N * F);
    s_keep (record, "swiglu dup", out2, sizeof (REAL), N * F);
}

static void
PART (small) (const TABLE *k, s_record_t *record, REAL **b)
{
    REAL *out = b[0], *out2 = b[1], *out3 = b[2];
    FILL (out, MOST, 1, 1);
    k->add (out, b[4], 0.375, N * H);
    s_keep (record, "add", out, sizeof (REAL), N * H);
    k->multiply (out, b[4], b[5], N * H);
    s_keep (record, "multiply", out, sizeof (REAL), N * H);
    double squares = k->sum_of_squares (b[4], N * H);
    s_keep (record, "sum_of_squares", &squares, sizeof squares, 1);
    assert_true (k->all_finite (b[4], N * H));

    FILL (out, MOST, 1, 4);
    k->cross_entropy (out, out2, s_ids, N, VOCAB, false);
    s_keep (record, "nll", out2, sizeof (REAL), N);
    k->cross_entropy (out, out2, s_ids, N, VOCAB, true);
    s_keep (record, "nll with gradient", out2, sizeof (REAL), N);
    s_keep (record, "dlogits", out, sizeof (REAL), N * VOCAB);

    FILL (out, MOST, 1, 1);
    FILL (out2, MOST, 2, 1e-2);
    k->multiply (out3, b[4], b[4], N * H);
    k->adamw (out, out2, out3, b[5], N * H, 0.5, 1e-2, 0.9, 0.999, 1e-8, 0.01, 3);
    s_keep (record, "adamw w", out, sizeof (REAL), N * H);
    s_keep (record, "adamw m", out2, sizeof (REAL), N * H);
    s_keep (record, "adamw v", out3, sizeof (REAL), N * H);
}

static void
PART (run) (const TABLE *k, s_record_t *record, size_t shift)
{
    REAL *b[BUFFERS], *memory = tl_alloc_aligned (BUFFERS * (MOST + 16) * sizeof (REAL));
    //  shift moves every buffer off its alignment.
    for (size_t i = 0; i < BUFFERS; i++) {
        b[i] = memory + i * (MOST + 16) + shift;
        FILL (b[i], MOST, i + 1, 1);
    }
    PART (embedding) (k, record, b);
    PART (norms) (k, record, b);
    PART (linear) (k, record, b);
    PART (rope) (k, record, b);
    PART (attention) (k, record, b);
    PART (activation) (k, record, b);
    PART (small) (k, record, b);
    free (memory);
}
