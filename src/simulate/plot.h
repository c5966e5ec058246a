//  plot: a simulated run as a picture: rows per second and arrangement of each period, and what the workers did, over time.

#ifndef TL_SIM_PLOT_H
#define TL_SIM_PLOT_H

#include "sim.h"

//  An SVG document as text, complete in itself (no scripts, no fonts to load). The caller frees.
char *tl_sim_plot (const tl_sim_spec_t *spec, const tl_sim_result_t *result);

#endif
