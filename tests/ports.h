/*  ports: for tests that start processes, TCP ports of 127.0.0.1 that nobody listens on.

    They are below the kernel's range for outgoing connections, so that none is taken by one between the
    choice and the bind, and begin at a place that follows from the process id: tests that run side by
    side look at different ones.                                                                   */

#ifndef PORTS_H
#define PORTS_H

#include <stddef.h>

//  Sets ports [count] to free ports, all different. Aborts if there are none.
void tests_ports (int *ports, size_t count);

#endif
