"""Method `spectrum-network`: the filter `spectrum`, then a network that comes with the package.

One network for all scanners (64,000 weights), trained once on simulated scanners
(`notebook/learned_stage.md`); users train the filter alone. The network sees a filtered slice and
its source in frequency bands, and what the training scans of both sides tell of their texture. For
every pixel it chooses by how much each band of both is added: it can damp noise where the filter
left too much and sharpen edges that it blurred, and cannot draw what neither image holds.
"""
