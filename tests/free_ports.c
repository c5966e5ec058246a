//  free_ports N: prints N free TCP ports of 127.0.0.1 on one line, for tests that are scripts.

#include "ports.h"

#include <stdio.h>
#include <stdlib.h>

int
main (int argc, char **argv)
{
    int ports[16], count = argc > 1 ? atoi (argv[1]) : 1;
    if (count < 1 || count > 16)
        return 4;
    tests_ports (ports, (size_t)count);
    for (int i = 0; i < count; i++)
        printf ("%d ", ports[i]);
    puts ("");
    return 0;
}
