"""Speech corpora to Parquet tables of units, transcripts and translations, on Ray."""

__version__ = "0.2.0"
