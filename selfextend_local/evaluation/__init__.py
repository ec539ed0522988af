"""Instruments: does the extension work on this model, on these lengths, better than what else there is?

    methods   what is compared: plain, SelfExtend, YaRN, NTK-aware base, linear, upstream's schedule
    tasks     what is asked: each makes items for a length, and knows nothing of methods
    reader    one loaded model that reads, answers and measures under a method
    runner    items x methods -> rows, appended to a file that survives kill -9
    summary   rows -> means with confidence intervals; plots and report draw them
"""
