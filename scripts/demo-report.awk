#   The end of scripts/demo: rows and words, separated by tabs, become a table on stdout and JSON in the file `json`.
#   Rows: name, held-out perplexity of each of `sites`, label tokens, seconds, bytes. Words: site, prompt, definition
#   before, after, WordNet's; all but site are JSON strings already. Exit code 1, after a sentence, when a row saw other label
#   tokens than the rest, or federated training is not what it should be.

#   Columns of site i.
function wide (i) {
    return length (site [i]) > 7 ? length (site [i]) + 2 : 9
}

BEGIN {
    FS = "\t"
    n = split (sites, site, " ")
    printf "\nHeld-out perplexity, lower is better\n%-17s", ""
    for (i = 1; i <= n; i++)
        printf "%" wide (i) "s", site [i]
    print "  seconds  MB sent  label tokens"
    printf "{\n  \"rows\": [" > json
}

#   A file of rows comes first, then one of words.
FNR == 1 { file++ }

file == 1 {
    printf "%-17s", $1
    printf "%s\n    {\"name\": \"%s\", \"perplexity\": {", (NR > 1 ? "," : ""), $1 > json
    for (i = 1; i <= n; i++) {
        printf "%" wide (i) ".2f", $(1 + i)
        printf "%s\"%s\": %s", (i > 1 ? ", " : ""), site [i], $(1 + i) > json
    }
    labels = $(n + 2)
    seconds = $(n + 3)
    bytes = $(n + 4)
    printf "%9s%9s%14s\n", seconds ? sprintf ("%.1f", seconds) : "-", bytes ? sprintf ("%.1f", bytes / 1e6) : "-",
        labels ? labels : "-"
    printf "}, \"label_tokens\": %s, \"seconds\": %s, \"bytes\": %s}", labels, seconds, bytes > json
    all [$1] = $(n + 1)
    if (labels && spent && labels != spent)
        unequal = $1 " saw " labels " label tokens, the row before it " spent
    if (labels)
        spent = labels
}

file == 2 {
    if (FNR == 1) {
        print "\nHeld-out words, defined before and after"
        printf "\n  ],\n  \"definitions\": [" > json
    }
    printf "%s\n    {\"site\": \"%s\", \"prompt\": %s, \"before\": %s, \"after\": %s, \"wordnet\": %s}", (FNR > 1 ? "," : ""),
        $1, $2, $3, $4, $5 > json
    for (i = 2; i <= 5; i++)
        $i = substr ($i, 2, length ($i) - 2)
    printf "%s (%s)\n    before:  %s\n    after:   %s\n    WordNet: %s\n", $2, $1, $3, $4, $5
}

function beats (name, than, factor) {
    return all [name] + 0 > 0 && all [name] + 0 < factor * all [than]
}

END {
    ours = "FL-GLM batch"
    if (unequal)
        why = unequal
    else if (!beats (ours, "base model", 1))
        why = ours " is no better than the base model over all sites"
    else if (!beats (ours, "centralised", 1.05))
        why = ours " is not within 5 % of centralised training over all sites"
    for (i = 1; i < n && !why; i++)
        if (!beats (ours, site [i] " alone", 1))
            why = ours " is no better over all sites than " site [i] " alone"
    printf "\n  ],\n  \"good\": %s\n}\n", (why ? "false" : "true") > json
    if (why)
        print "\n" why
    else {
        printf "\nEvery trained row saw the same %d label tokens. Over all sites the perplexity of %s is %.1f %% below\n",
            spent, ours, 100 - 100 * all [ours] / all ["base model"]
        printf "the base model\047s, below that of every site alone, and %.1f %% of centralised training\047s.\n",
            100 * all [ours] / all ["centralised"]
    }
    exit why != ""
}
