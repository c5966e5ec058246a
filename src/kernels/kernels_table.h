//  kernels_table: the table of kernels for one scalar type. Included by kernels.h with TL_REAL and
//  TL_TABLE defined, once for float and once for double; hence no include guard.

typedef struct {
    //  --- embedding: table [vocab, h] in its storage dtype (double build: table is TL_REAL and dtype is
    //  ignored). out [n, h]; ids are already checked to be < vocab.
    void (*embedding_forward) (TL_REAL *out, const void *table, tl_dtype_t dtype,
                               const int32_t *ids, size_t n, size_t h);
    void (*embedding_backward) (TL_REAL *dtable, const TL_REAL *dout, const int32_t *ids, size_t n,
                                size_t h); //  dtable [vocab, h] +=

    //  --- norms: x, y [n, h]; w, b [h]; mean, rstd [n] are kept for backward. dx is overwritten;
    //  dw, db may be NULL (frozen), else +=.
    void (*layernorm_forward) (TL_REAL *y, TL_REAL *mean, TL_REAL *rstd, const TL_REAL *x,
                               const TL_REAL *w, const TL_REAL *b, size_t n, size_t h, double eps);
    void (*layernorm_backward) (TL_REAL *dx, TL_REAL *dw, TL_REAL *db, const TL_REAL *dy,
                                const TL_REAL *x, const TL_REAL *w, const TL_REAL *mean,
                                const TL_REAL *rstd, size_t n, size_t h);
    void (*rmsnorm_forward) (TL_REAL *y, TL_REAL *rstd, const TL_REAL *x, const TL_REAL *w,
                             size_t n, size_t h, double eps);
    void (*rmsnorm_backward) (TL_REAL *dx, TL_REAL *dw, const TL_REAL *dy, const TL_REAL *x,
                              const TL_REAL *w, const TL_REAL *rstd, size_t n, size_t h);

    //  --- linear: y = alpha * x W^T + beta_y * y (+ bias when not NULL). x [n, in], W [out, in] in its
    //  storage dtype, widened as it is packed. With beta 0 y is not read. A row's bits depend on x's row alone, not
    //  on n, nor on the threads. Up to 4 rows (decoding) take loops of their own; so does attention_forward.
    void (*linear_forward) (TL_REAL *y, const TL_REAL *x, const void *w, tl_dtype_t dtype,
                            const TL_REAL *bias, size_t n, size_t in, size_t out, double alpha,
                            double beta_y);
    //  dx = alpha * dy W + beta_x * dx. dy [n, out].
    void (*linear_backward_input) (TL_REAL *dx, const TL_REAL *dy, const void *w, tl_dtype_t dtype,
                                   size_t n, size_t in, size_t out, double alpha, double beta_x);
    //  dw += alpha * dy^T x; db += column sums of dy. Either may be NULL, x as well without dw.
    void (*linear_backward_weight) (TL_REAL *dw, TL_REAL *db, const TL_REAL *dy, const TL_REAL *x,
                                    size_t n, size_t in, size_t out, double alpha);

    //  --- rotary, in place: x has n rows of stride, heads heads of head_stride, first value at offset
    //  in each head, d_rot values turned. direction +1 forward, -1 backward.
    void (*rope) (TL_REAL *x, const TL_REAL *cosine, const TL_REAL *sine, size_t n, size_t stride,
                  size_t heads, size_t head_stride, size_t offset, size_t d_rot, tl_rope_t style,
                  int direction);

    //  --- attention of one sequence. Scores exist for a tile of rows at a time; lse [heads, rows]
    //  (log-sum-exp) is kept for backward. scratch: tl_attention_scratch (shape, backward) reals.
    //  backward: dq, dk, dv have the layout of q, k, v and are ADDED to (+=); o is the forward output.
    void (*attention_forward) (TL_REAL *o, TL_REAL *lse, const TL_REAL *q, const TL_REAL *k,
                               const TL_REAL *v, const tl_attention_t *shape, TL_REAL *scratch);
    void (*attention_backward) (TL_REAL *dq, TL_REAL *dk, TL_REAL *dv, const TL_REAL *d_o,
                                const TL_REAL *q, const TL_REAL *k, const TL_REAL *v,
                                const TL_REAL *o, const TL_REAL *lse, const tl_attention_t *shape,
                                TL_REAL *scratch);

    //  --- activations. gelu: tanh form (ChatGLM-6B), y, x [count]. swiglu: y = silu (gate) * up,
    //  row r of gate and up at gate + r * stride, up + r * stride; y [n, f].
    void (*gelu_forward) (TL_REAL *y, const TL_REAL *x, size_t count);
    void (*gelu_backward) (TL_REAL *dx, const TL_REAL *dy, const TL_REAL *x, size_t count);
    void (*swiglu_forward) (TL_REAL *y, const TL_REAL *gate, const TL_REAL *up, size_t n, size_t f,
                            size_t stride);
    void (*swiglu_backward) (TL_REAL *dgate, TL_REAL *dup, const TL_REAL *dy, const TL_REAL *gate,
                             const TL_REAL *up, size_t n, size_t f, size_t stride);

    //  --- small vectors of count values
    void (*add) (TL_REAL *y, const TL_REAL *x, double scale, size_t count); //  y += scale * x
    void (*multiply) (TL_REAL *y, const TL_REAL *x, const TL_REAL *keep,
                      size_t count);                           //  y = x * keep
    double (*sum_of_squares) (const TL_REAL *x, size_t count); //  in double, fixed order
    bool (*all_finite) (const TL_REAL *x, size_t count);

    //  --- loss of n rows of logits [n, vocab] against targets [n] (all valid ids): adds nothing, writes
    //  nll [n] and turns logits into d(sum of nll)/d(logits) in place when gradient is true.
    void (*cross_entropy) (TL_REAL *logits, TL_REAL *nll, const int32_t *targets, size_t n,
                           size_t vocab, bool gradient);

    //  --- AdamW as in torch.optim.AdamW: g = coefficient * gradient; decoupled decay; bias correction
    //  with step (1-based). w, m, v [count].
    void (*adamw) (TL_REAL *w, TL_REAL *m, TL_REAL *v, const TL_REAL *gradient, size_t count,
                   double coefficient, double lr, double beta1, double beta2, double eps,
                   double decay, uint64_t step);
} TL_TABLE;
