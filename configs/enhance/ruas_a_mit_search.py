"""Search of RUAS_A on MIT-Adobe FiveK. Its noise estimator has nothing to search: this is the search of RUAS."""

_base_ = './ruas_full_mit_search.py'
