"""Search of RUAS_A on LOL. Its noise estimator has nothing to search: this is the search of RUAS."""

_base_ = './ruas_full_lol_search.py'
