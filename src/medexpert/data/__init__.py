"""Sources -> corpora and examples: provenance that can be audited without a GPU.

Flow: `catalogue` names a source, `readers` open it, `quarantine`, `filters` and `dedup` take
records out with a reason each, `parts` cuts long documents, `gather` does this for a source,
`mix` orders, `build` writes, `card` explains; `inspection` tells before what a build would meet.
"""
