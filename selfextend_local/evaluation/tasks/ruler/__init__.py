"""The eleven synthetic tasks of RULER (Hsieh et al., arXiv:2404.06654): needles, chains of variables, and word counts.

    words     the words that keys, lists and codes are made of
    samples   what a task makes: a text with a question, how the answer begins, what it has to name
    needles   niah_*: one or several values among noise, an essay, or other needles
    tracing   vt: variables that are assigned to each other
    counting  cwe, fwe: the most common words of a list and of a coded text
    task      Ruler, which fits them to a length
"""
